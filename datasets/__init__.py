"""TFDS builders, one folder per dataset, that need no TensorFlow to write or to read."""
