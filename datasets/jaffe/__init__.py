"""JAFFE, the Japanese Female Facial Expression dataset."""
