"""The networks that come with the package; beside each lies its model card."""

from importlib import resources
from pathlib import Path

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.weights import Trained, load_model


def pretrained_names() -> list[str]:
    """The names `load_pretrained` takes."""
    names = (file.name for file in resources.files(__name__).iterdir())
    return sorted(
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    )


def load_pretrained(name: str) -> Trained:
    """Loads a network that comes with the package; needs no network connection.

    Args:
      name: "fer2013-paper" is the paper's network, 47,657 parameters, trained on FER-2013.

    Raises:
      UserError: for an unknown name.
    """
    names = pretrained_names()
    if name not in names:
        raise UserError(f"no pretrained network is called {name!r}; choose from {names}")
    with resources.as_file(resources.files(__name__) / f"{name}.safetensors") as path:
        return load_model(path)


def load_network(name_or_path: str) -> Trained:
    """Loads a network that comes with the package, by its name, or a .safetensors file.

    Raises:
      UserError: for an unknown name, or a file that is missing, damaged or something else.
    """
    if Path(name_or_path).suffix:
        return load_model(name_or_path)
    return load_pretrained(name_or_path)
