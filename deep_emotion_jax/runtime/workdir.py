"""The folder of a run: its provenance, and a lock against concurrent runs."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import lock, read_json, write_json
from deep_emotion_jax.runtime.devices import describe
from deep_emotion_jax.runtime.provenance import commit, versions

_SAME_RUN = ("config", "runs", "fingerprint")  # must not change when a run is resumed


def provenance(
    config: ConfigDict, data: Split, run_names: Sequence[str], devices: list[jax.Device]
) -> dict[str, Any]:
    """Returns the provenance of a run: config, runs, data, command, commit, device and versions.

    Returns:
      A JSON object, written to config.json, every checkpoint and summary.json.
    """
    # A run may be resumed with other paths, on other devices, with or without streaming.
    settings = {
        key: value
        for key, value in config.to_dict().items()
        if key not in ("manual_dir", "data_dir", "accelerator", "num_devices", "streaming")
    }
    about = {
        "config": settings,
        "runs": list(run_names),
        "fingerprint": data.fingerprint(),
        # For later commands on the run; they may change.
        "paths": {
            name: os.path.abspath(path) if (path := config.get(name)) else ""
            for name in ("data_dir", "manual_dir")
        },
        "command": " ".join(sys.argv),
        "commit": commit(),
        "device": describe(devices),
        "versions": versions(),
    }
    return json.loads(json.dumps(about))


@contextmanager
def claim_workdir(
    workdir: Path, about: dict[str, Any], *, accept_changes: bool = False
) -> Iterator[None]:
    """Locks a folder for this process, and checks that it belongs to the same run.

    A different commit, device or library version is only reported: it may change the last bits of
    the results.

    Args:
      workdir: created if it does not exist.
      about: the result of `provenance`; written to config.json.
      accept_changes: resume with another config or other data.

    Raises:
      UserError: if another process uses the folder, or if it belongs to another config or other
        data; the message names the differences.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held = (workdir / "lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write to the workdir {workdir}: {error}") from error
    with held:
        if not lock(held):
            held.seek(0)
            raise UserError(
                f"another run is using {workdir} ({held.read().strip() or 'just started'}); "
                "wait until it ends, or give another --workdir"
            )
        _compare(workdir, about, accept_changes)
        try:
            held.truncate(0)
            held.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            held.flush()
            write_json(workdir / "config.json", about)
        except OSError as error:
            raise UserError(f"cannot write to the workdir {workdir}: {error}") from error
        yield


def _compare(workdir: Path, about: dict[str, Any], accept_changes: bool) -> None:
    """Raises for the folder of another run; reports a different commit, device or version."""
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        before = read_json(path)
        if not isinstance(before, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it to continue with the settings given now"
        ) from error
    same = {key: (before.get(key), about[key]) for key in _SAME_RUN}
    differences = _differences(*({key: pair[i] for key, pair in same.items()} for i in (0, 1)))
    if differences and not accept_changes:
        raise UserError(
            f"{workdir} holds a run of another config ({differences}); give another --workdir, "
            "the same settings to resume it, or --accept-changes to continue with these"
        )
    if differences:
        print(f"continuing with changes: {differences}", flush=True)
    others = ("commit", "device", "versions")
    now = _differences(*({key: it.get(key) for key in others} for it in (before, about)))
    if now:
        print(
            f"note: {workdir} was last used with another set-up; the last bits may differ: {now}",
            flush=True,
        )


def _differences(there: Any, here: Any) -> str:
    old, new = _leaves(there), _leaves(here)
    return "; ".join(
        f"{key}: {old.get(key)} there, {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _leaves(branch, f"{prefix}.{key}".lstrip(".")).items()
    }
