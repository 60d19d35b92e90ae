"""What a benchmark needs beyond the project's own dependencies."""

import importlib.util


def require(*packages: str) -> None:
    """End the program with one sentence if packages are missing.

    Call it before they are imported.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"this benchmark compares with other libraries: pip install {' '.join(missing)}"
        )
