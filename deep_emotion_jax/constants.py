"""Constants shared by several parts of the package."""

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions in FER-2013's order, which every network of this project uses."""

IMAGE_SIZE = 48
"""Side in pixels of the network's input (as in FER-2013 and in the paper)."""

SMOOTH_SECONDS = 0.5
"""The window over which the probabilities of a face in a video are averaged."""

ACCELERATORS = ("auto", "cpu", "gpu", "tpu")
"""Kinds of devices to choose from; "auto" is the fastest kind that JAX finds."""

VIEWS = {
    "none": "",
    "mirror": "face and mirror image",
    "shifts": "five shifts",
    "ten": "ten crops",
}
"""Choices of test-time views (`evaluation.views`), and their names in reports."""

DEFAULT_MODEL = "deep_emotion_wide.fer2013"
"""The network of the package that predictions use by default."""
