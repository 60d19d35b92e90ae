"""FERG-DB, the Facial Expression Research Group 2D database of cartoon characters."""
