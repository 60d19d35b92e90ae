"""One short file per experiment over the shared default."""
