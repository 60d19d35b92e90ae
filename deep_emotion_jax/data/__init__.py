"""Pictures, face detection, splits and folds."""
