"""CK+, the Extended Cohn-Kanade Dataset."""
