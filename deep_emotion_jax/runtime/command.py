"""Start and end of commands that train or evaluate: JAX's settings, errors, exit codes."""

import errno
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
from absl import logging as absl_logging

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.devices import use_compilation_cache
from deep_emotion_jax.runtime.signals import STOPPED_EXIT_CODE, Stopped

# What reading and writing raise when a disk fails, becomes read-only or is unmounted.
_DISK_ERRORS = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EACCES, errno.EPERM)


def run_command(command: Callable[[], None]) -> None:
    """Sets up JAX and logging, runs a command, and exits if it fails.

    docs/reliability.md lists the exit codes.
    """
    try:
        _set_up()
        command()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more
        sys.exit("error: the output was closed before the end; run the same command again")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"error: {error}; free some disk space and run the command again to resume")
        if error.errno not in _DISK_ERRORS:
            raise
        sys.exit(f"error: {error}; check the disk and run the command again to resume")
    except Stopped as stopped:
        for stream in (sys.stdout, sys.stderr):  # one or both may be closed
            with suppress(BrokenPipeError):
                print(stopped, file=stream, flush=True)
                break
        # All files are closed. sys.exit would wait for the epoch that XLA may still compute.
        os._exit(STOPPED_EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(130)


def _set_up() -> None:
    # Two CPU devices on two cores train faster than one device with two threads. Accelerators are
    # not affected.
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    use_compilation_cache()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(_not_from_tfds)


def _not_from_tfds(record: logging.LogRecord) -> bool:
    """Drops TFDS's warnings at every start: OpenCV is missing, a config is custom."""
    return (
        record.levelno > logging.WARNING or "tensorflow_datasets" not in Path(record.pathname).parts
    )
