"""The long form of tests/test_fuzz.py: counts the outcomes of thousands of damaged files.

    python -m tests.fuzz --seconds 20            # for each target
    python -m tests.fuzz --seconds 600 --cases 10000
    python -m tests.fuzz --only "zip archive" --seed 7

Every case is a function of its target, its number and --seed. A defect is printed with these and
its traceback; the exit code is then 1.
"""

import argparse
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from .hostile import cases
from .targets import TARGETS, DefectError, check, damaged, valid


def main() -> int:
    """Runs the targets and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="for each target; default: 20")
    parser.add_argument("--cases", type=int, help="end a target after so many; default: no limit")
    parser.add_argument("--only", choices=TARGETS, action="append", help="this target")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of odd tags
    logging.disable()
    # libtiff writes such warnings directly to the file descriptor.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    defects: Counter[str] = Counter()
    if not options.only:
        attacks(defects)
    print(f"{'target':26} {'cases':>8} {'read':>8} {'refused':>8} {'defects':>8}  peak MB")
    for name in options.only or TARGETS:
        counts: Counter[str] = Counter()
        valid(name)
        with tempfile.TemporaryDirectory() as folder:
            end = time.monotonic() + options.seconds
            number = 0
            while time.monotonic() < end and number != options.cases:
                rng = random.Random(f"{options.seed}/{name}/{number}")
                try:
                    outcome = check(damaged(name, Path(folder), rng), Path(folder))
                except DefectError as defect:
                    outcome = "defect"
                    kind = _kind(defect)
                    if not defects[kind]:
                        print(f"--- {name}, case {number}: {str(defect)[:300]}")
                        traceback.print_exception(
                            defect.__cause__ or defect, limit=-6, file=sys.stdout
                        )
                    defects[kind] += 1
                counts[outcome] += 1
                number += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row = " ".join(f"{counts[kind]:8,}" for kind in ("read", "refused", "defect"))
        print(f"{name:26} {number:8,} {row}  {peak:7.0f}", flush=True)
    return 1 if defects else 0


def attacks(defects: Counter[str]) -> None:
    """Runs the cases of hostile.py."""
    counts: Counter[str] = Counter()
    for name, lay in cases():
        with tempfile.TemporaryDirectory() as folder:
            attack = lay(Path(folder))
            try:
                counts[check(attack, Path(folder))] += 1
            except DefectError as defect:
                print(f"--- {name}: {defect}")
                defects[name] += 1
                counts["defects"] += 1
    print("attacks made by hand:", ", ".join(f"{n} {kind}" for kind, n in counts.items()))


def _kind(defect: DefectError) -> str:
    """The error's type and place, by which defects are counted once."""
    error = defect.__cause__ or defect
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {frame.filename}:{frame.lineno}"


if __name__ == "__main__":
    sys.exit(main())
