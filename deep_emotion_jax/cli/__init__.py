"""The commands of `deep-emotion`."""
