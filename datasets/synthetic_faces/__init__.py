"""Generated faces that need no download."""
