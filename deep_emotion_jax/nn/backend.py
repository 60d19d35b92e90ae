"""The kind of device that computations run on, and the measured rules that depend on it."""

import jax


def platform() -> str:
    """The platform of the default device, such as "cpu" or "gpu"."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def micro_batch_size(batch_size: int) -> int:
    """Number of images whose activations are alive at once.

    Measured: on a CPU sixteen keep the activations in cache; an accelerator wants all of them.
    """
    return min(16, batch_size) if platform() == "cpu" else batch_size
