"""One short file per experiment; each changes the shared defaults."""
