"""The platform that JAX computes on, and the micro-batch size measured for it."""

import jax


def platform() -> str:
    """Returns the platform of the default device, such as "cpu" or "gpu"."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def micro_batch_size(batch_size: int) -> int:
    """Returns the number of images to process at a time.

    Measured: the activations of 16 images fit a CPU's cache; accelerators are fastest with the
    whole batch.
    """
    return min(16, batch_size) if platform() == "cpu" else batch_size
