"""Code shared by the benchmarks: the network, interleaved timing, and the JSON file."""

import argparse
import datetime
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deep_emotion_jax.nn.model import DeepEmotion

CORES = os.cpu_count() or 1
RESULTS = Path(__file__).parent / "results"
LOAD_AVERAGE = os.getloadavg()  # of 1, 5 and 15 minutes at the start; shows whether it was idle
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "onnxruntime")


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="use tiny sizes, to test the script")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    return made


class EpochTimes(io.StringIO):
    """A standard output for `loop.fit` that records the time of every epoch's line.

    Args:
      clock: a clock in seconds, such as `time.perf_counter`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self.times: list[float] = []

    def write(self, text: str) -> int:
        """Writes, and records the time of an epoch's line."""
        if text.startswith("epoch "):
            self.times.append(self._clock())
        return super().write(text)


def make_model() -> DeepEmotion:
    """Makes the paper's network with a theta other than the identity, so that it interpolates."""
    model = DeepEmotion(rngs=nnx.Rngs(0))
    assert model.localization is not None
    model.localization.theta.bias[...] = jnp.array([0.93, 0.05, 0.02, -0.04, 0.91, 0.03])
    return model


def make_mesh() -> jax.sharding.Mesh:
    """Makes a mesh with all devices on one axis, as in `training.loop.fit`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def time_in_turn(
    sides: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 0.0
) -> dict[str, list[float]]:
    """Times functions in turn, so that other load on the machine affects all of them.

    Args:
      sides: functions that return when their work is done. Each is called once untimed, which
        compiles it.
      rounds: number of turns of each function.
      seconds: minimum duration of a turn, which repeats its function; at least one call.

    Returns:
      Seconds per call for each side and round.
    """
    for call in sides.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            time.sleep(0.05)  # threads of the previous side may still spin
            calls, began = 0, time.perf_counter()
            while not calls or time.perf_counter() - began < seconds:
                call()
                calls += 1
            times[name].append((time.perf_counter() - began) / calls)
    return times


def speed_ratios(times: Mapping[str, list[float]], ours: str = "jax") -> dict[str, float]:
    """Returns the speed of `ours` over that of each other side, as the median of the rounds."""
    return {
        name: statistics.median(t / mine for t, mine in zip(theirs, times[ours], strict=True))
        for name, theirs in times.items()
        if name != ours
    }


def write_json(folder: Path, name: str, settings: Mapping[str, Any], results: Any) -> None:
    """Writes `<folder>/<name>.json`: results, date, commit, machine, versions and settings."""
    content = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("describe", "--always", "--dirty"),
        "machine": {
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "cpu": _cpu(),
            "cores": CORES,
            "load_average": LOAD_AVERAGE,
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "settings": settings,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
