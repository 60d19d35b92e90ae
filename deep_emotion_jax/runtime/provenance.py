"""Provenance of results: versions of the libraries and commit of this code."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

LIBRARIES = ("deep-emotion-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # this project, run from its clone
            continue
    return found


def commit() -> str | None:
    """Returns the git commit of this code, with "-dirty" if it has uncommitted changes.

    Returns None outside a repository, or if git is not installed.
    """
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return found.stdout.strip() or None
