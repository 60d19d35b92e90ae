"""Pretrained networks in the package. Names follow timm: architecture.training_data."""

from importlib import resources
from pathlib import Path

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.weights import Trained, load_model

RENAMED = {
    "fer2013-paper": "deep_emotion.fer2013",
    "fer2013-wide": "deep_emotion_wide.fer2013",
}


def pretrained_names() -> list[str]:
    """Return the names that `load_pretrained` takes."""
    names = (file.name for file in resources.files(__name__).iterdir())
    return sorted(
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    )


def load_pretrained(name: str) -> Trained:
    """Load a network of the package, or one of your own, without network access.

    Args:
      name: one of
        - "deep_emotion.fer2013": the paper's network, 47,657 parameters, trained on FER-2013;
        - "deep_emotion_wide.fer2013": a wider network, 1,172,989 parameters, trained on FER-2013;
        - the path of a .safetensors file, such as those in the `weights` folder of a run.

    Raises:
      UserError: for an unknown name or an unreadable file.
    """
    if Path(name).suffix == ".safetensors":
        return load_model(name)
    if name in RENAMED:
        raise UserError(f"{name!r} has been renamed to {RENAMED[name]!r}; use the new name")
    names = pretrained_names()
    if name not in names:
        raise UserError(
            f"no pretrained network is called {name!r}; choose from {names}, "
            "or give a .safetensors file"
        )
    with resources.as_file(resources.files(__name__) / f"{name}.safetensors") as path:
        return load_model(path)
