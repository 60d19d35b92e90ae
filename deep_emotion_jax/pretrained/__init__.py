"""The networks that come with the package; beside each lies its model card."""

from importlib import resources
from pathlib import Path

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.weights import Trained, load_model


def pretrained_names() -> list[str]:
    """The names `load_pretrained` takes."""
    names = (file.name for file in resources.files(__name__).iterdir())
    return sorted(
        name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")
    )


def load_pretrained(name: str) -> Trained:
    """Loads a network that comes with the package, or one of your own; needs no connection.

    Args:
      name: "fer2013-paper" is the paper's network, 47,657 parameters, "fer2013-wide" our wider one,
        968,479 parameters, both trained on FER-2013. Or the path of a .safetensors file, such as a
        training leaves in its weights/ folder.

    Raises:
      UserError: for an unknown name or an unreadable file.
    """
    if Path(name).suffix == ".safetensors":
        return load_model(name)
    names = pretrained_names()
    if name not in names:
        raise UserError(
            f"no pretrained network is called {name!r}; choose from {names}, "
            "or give a .safetensors file"
        )
    with resources.as_file(resources.files(__name__) / f"{name}.safetensors") as path:
        return load_model(path)
