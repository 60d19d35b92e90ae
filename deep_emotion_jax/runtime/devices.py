"""The devices that a program computes on, and JAX's compilation cache."""

import os
from collections import Counter
from pathlib import Path

import jax

from deep_emotion_jax.constants import ACCELERATORS
from deep_emotion_jax.errors import UserError


def choose_devices(accelerator: str = "auto", num_devices: int = 0) -> list[jax.Device]:
    """Chooses the devices to compute on and makes the first of this process JAX's default.

    Args:
      accelerator: one of `ACCELERATORS`; "auto" is a TPU if there is one, else a GPU, else the CPU.
      num_devices: number of devices per process; 0 for all.

    Returns:
      The devices of all processes.

    Raises:
      UserError: for an unknown name, or if JAX finds none or too few of these devices; the message
        lists those that it finds.
    """
    if accelerator not in ACCELERATORS:
        raise UserError(f"the accelerator must be one of {ACCELERATORS}, got {accelerator[:50]!r}")
    try:
        found = jax.devices(None if accelerator == "auto" else accelerator)
    except RuntimeError as error:
        raise UserError(
            f"no {accelerator} for config.accelerator or --device: JAX finds {_kinds()}; choose "
            "one of these or 'auto', or install JAX for it "
            "(https://docs.jax.dev/en/latest/installation.html)"
        ) from error
    own = jax.local_devices(backend=found[0].platform)
    if num_devices > len(own):
        raise UserError(
            f"config.num_devices={num_devices} is more than the {describe(own)} that a process "
            "has; give a smaller number, or 0 for all"
        )
    if found[0].platform != jax.default_backend():
        jax.config.update("jax_default_device", own[0])
    used: Counter[int] = Counter()
    chosen = []
    for device in found:
        used[device.process_index] += 1
        if not num_devices or used[device.process_index] <= num_devices:
            chosen.append(device)
    return chosen


def describe(devices: list[jax.Device]) -> str:
    """Returns number and kind of devices, such as "2 x NVIDIA H100 80GB HBM3" or "2 x cpu"."""
    return f"{len(devices)} x {devices[0].device_kind}"


def data_mesh(devices: list[jax.Device]) -> jax.sharding.Mesh:
    """Returns a mesh of one axis, "data", over these devices."""
    axis_types = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((len(devices),), ("data",), axis_types=axis_types, devices=devices)


def fits(size: int, devices: list[jax.Device]) -> bool:
    """Whether data of `size` bytes fits in the host's memory and on each device.

    It may take a sixth of the host's memory, which holds up to three copies while it is read, and
    0.4 of the device's, which holds two while it is copied. On a CPU both are the same memory. A
    memory of unknown size is assumed to be large enough.
    """
    try:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        host = None
    own = next(device for device in devices if device.process_index == jax.process_index())
    device = (own.memory_stats() or {}).get("bytes_limit")
    return (host is None or size <= host / 6) and (device is None or size <= 0.4 * device)


def use_compilation_cache() -> None:
    """Caches compiled programs in a folder of the user, which makes the next start faster.

    JAX 0.9 is excluded: on a CPU it logs two errors for each program that it reads from a cache.
    JAX_COMPILATION_CACHE_DIR names another folder; an empty value disables the cache. If the folder
    is not writable, there is no cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return  # JAX reads it
    if jax.__version_info__ < (0, 10):
        return
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(home).expanduser() / "deep-emotion-jax" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # read-only, or there is no home
        writable = False
    if writable:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # JAX's default skips programs that compile in under a second; a start compiles many.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _kinds() -> str:
    kinds: dict[str, list[jax.Device]] = {}
    for platform in ("cpu", "gpu", "tpu"):
        try:
            kinds[platform] = jax.devices(platform)
        except RuntimeError:
            continue
    return ", ".join(f"{platform!r} ({describe(devices)})" for platform, devices in kinds.items())
