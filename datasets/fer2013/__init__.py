"""FER-2013 and its FER+ labels."""
