"""Your own pictures: a folder with one subfolder per class."""
