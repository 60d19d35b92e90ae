"""Deep-Emotion (Minaee & Abdolrashidi, arXiv 1902.01019) in JAX.

The public names are imported on first use, so that using one part does not load the others: the
sampler needs only JAX, and importing the package alone loads neither JAX nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deep_emotion_jax.inference.predictor import Face, Prediction, Predictor
    from deep_emotion_jax.nn.model import DeepEmotion
    from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample
    from deep_emotion_jax.nn.weights import Trained, load_model, save_model
    from deep_emotion_jax.pretrained import load_pretrained, pretrained_names

__version__ = "0.2.0"

__all__ = [
    "DeepEmotion",
    "Face",
    "Prediction",
    "Predictor",
    "Trained",
    "affine_grid",
    "grid_sample",
    "load_model",
    "load_pretrained",
    "pretrained_names",
    "save_model",
]

_MODULES = {
    "DeepEmotion": "nn.model",
    "Face": "inference.predictor",
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "Trained": "nn.weights",
    "affine_grid": "nn.spatial_transformer",
    "grid_sample": "nn.spatial_transformer",
    "load_model": "nn.weights",
    "load_pretrained": "pretrained",
    "pretrained_names": "pretrained",
    "save_model": "nn.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
