"""Print docs/dependencies.md: the installed packages and the licences that they state.

.venv/bin/python .ci/licences.py > docs/dependencies.md
"""

import importlib.metadata


def licence(package: importlib.metadata.PackageMetadata) -> str:
    """Return the licence expression, else the classifiers, else the start of the licence field."""
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


if __name__ == "__main__":
    main()
