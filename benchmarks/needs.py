"""Checks for libraries that benchmarks need beyond the project's dependencies."""

import importlib.util


def require(*packages: str) -> None:
    """Exit with one sentence if packages are missing; call it before importing them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"this benchmark compares with other libraries: pip install {' '.join(missing)}"
        )
