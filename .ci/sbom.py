"""Print a software bill of materials, CycloneDX 1.6 JSON: the installed packages and the weights.

pip install cyclonedx-bom
python .ci/sbom.py > sbom.json
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LICENCES = {"data": "MIT", "pretrained": "Apache-2.0"}


def weights() -> list[dict]:
    """Return a component for each weights file of the package."""
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": str(path.relative_to(ROOT)),
            "name": path.stem,
            "description": f"{path.relative_to(ROOT)}; its model card is in the same folder",
            "hashes": [
                {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
            ],
            "licenses": [{"license": {"id": LICENCES[path.parent.name]}}],
        }
        for path in sorted(ROOT.glob("deep_emotion_jax/*/*.safetensors"))
    ]


def main() -> None:
    """Print the bill of materials."""
    command = ["environment", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible"]
    made = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *command, sys.executable],
        stdout=subprocess.PIPE,
        check=True,
    )
    bom = json.loads(made.stdout)
    bom["components"] += weights()
    print(json.dumps(bom, indent=2))


if __name__ == "__main__":
    main()
