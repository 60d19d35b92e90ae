"""Train on generated faces and read the report of the run.

    python examples/train_and_read_report.py --workdir runs/example

Needs the extra `train`, or pip install -r requirements.txt. Takes some minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with main.py, then print results from summary.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/example"))
    options, settings = parser.parse_known_args(arguments)  # such as --config.num_epochs=3

    command = [sys.executable, ROOT / "main.py", "--workdir", options.workdir, *settings]
    subprocess.run(command, check=True)

    summary = json.loads((options.workdir / "summary.json").read_text())
    (run,) = summary["runs"]
    score = run["test"]
    low, high = score["interval95"]
    print(f"{summary['parameters']:,} parameters, epoch {run['best_epoch']} was chosen")
    print(f"test accuracy {score['accuracy']:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    for name, recall in zip(summary["classes"], score["per_class_recall"], strict=True):
        print(f"  recall of {name:9} {recall:6.1%}")
    if run["problem"]:
        print(f"warning: {run['problem']}")
    print(f"weights for Predictor: {options.workdir / 'weights' / run['name']}.safetensors")


if __name__ == "__main__":
    main()
