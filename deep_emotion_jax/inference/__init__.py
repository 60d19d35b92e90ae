"""Predictions for pictures, drawn and served."""
