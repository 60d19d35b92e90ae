"""Deep-Emotion (Minaee & Abdolrashidi, arXiv 1902.01019) in JAX.

`load_pretrained` and `Predictor` are imported when first asked for, so that this package stays
light for those who want one of its parts.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deep_emotion_jax.inference.predictor import Predictor
    from deep_emotion_jax.pretrained import load_pretrained

__all__ = ["Predictor", "load_pretrained"]

_HOMES = {"Predictor": "inference.predictor", "load_pretrained": "pretrained"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
