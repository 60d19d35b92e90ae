"""Pictures, faces, splits and folds."""
