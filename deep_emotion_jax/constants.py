"""Numbers and names that several parts share."""

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions in FER-2013's order, which every network of this project uses."""

IMAGE_SIZE = 48
"""Side in pixels of the face that the network takes (FER-2013's size, and the paper's)."""

SMOOTH_SECONDS = 0.5
"""The window over which the probabilities of a face in a video are averaged."""
