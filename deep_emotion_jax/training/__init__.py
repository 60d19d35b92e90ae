"""From a config to trained weights."""
