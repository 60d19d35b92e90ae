"""Calculates what limits training at scale: steps, all-reduce, validation or reading images.

    python -m benchmarks.scaling_model

This is a calculation. Only the reader's rate is measured, in images per second of CPU time, so that
other work on the machine does not affect it. All other inputs are assumptions, which are printed as
such and can be set by arguments.

A step takes b / rate on a device with b images of the batch, but at least the device's shortest
step. The gradients are reduced by a ring or a binary tree, whichever is faster. Every device runs
the whole validation. Images are read once if they fit in the devices' memory, else in every epoch.
The calculation counts that as decoding; a streamed training decodes once and then reads pixels at
the speed of the disk (docs/scaling.md). The reader is measured on generated faces with two PNGs
each (face and evidence mask); most datasets have one.
"""

import argparse
import math
import tempfile
import time
from typing import NamedTuple

from datasets.common import prepare
from datasets.synthetic_faces import synthetic_faces_dataset_builder as faces
from deep_emotion_jax.data.split import load_split

IMAGE_BYTES = 48 * 48
GRADIENT_BYTES = 4 * 47_657
VALIDATION = 3_589  # FER-2013's PublicTest


class Machine(NamedTuple):
    """The properties of the devices.

    Attributes:
      rate: training speed of one device in images per second.
      shortest_step: minimum duration of a step in seconds.
      memory: bytes of one device.
      bandwidth: bytes per second of the link between two devices.
      latency: seconds per message on it.
      cores: cores of the host per device.
      decode: images per second that one core reads.
    """

    rate: float
    shortest_step: float
    memory: float
    bandwidth: float
    latency: float
    cores: float
    decode: float


class Costs(NamedTuple):
    """Seconds of one epoch by cause; if the images fit, `read` is for the first epoch only."""

    step: float
    all_reduce: float
    validation: float
    read: float
    fits: bool

    @property
    def limit(self) -> str:
        """The largest cost of every epoch."""
        causes = self._asdict()
        causes.pop("fits")
        if self.fits:
            causes.pop("read")
        return max(causes, key=causes.__getitem__)


def all_reduce_seconds(machine: Machine, devices: int) -> float:
    """Returns the time to reduce one step's gradients, by the faster of ring and binary tree."""
    ring_message = GRADIENT_BYTES / devices / machine.bandwidth + machine.latency
    tree_message = GRADIENT_BYTES / machine.bandwidth + machine.latency
    return min(2 * (devices - 1) * ring_message, 2 * math.ceil(math.log2(devices)) * tree_message)


def costs(machine: Machine, images: float, devices: int, batch: int, runs: int = 1) -> Costs:
    """Returns the costs of an epoch.

    Args:
      machine: the devices.
      images: number of training images.
      devices: total number of devices.
      batch: images per step on all devices.
      runs: number of seeds or folds that train together (`vmap`).
    """
    steps = math.ceil(images / batch)
    share = math.ceil(batch / devices)
    step = max(machine.shortest_step, runs * share / machine.rate)
    # The forward pass is a third of a training step.
    validation = runs * VALIDATION / (3 * machine.rate)
    read = images / (devices * machine.cores * machine.decode)
    # Copying to the device needs twice their size.
    fits = 2 * images * IMAGE_BYTES < machine.memory
    return Costs(steps * step, steps * all_reduce_seconds(machine, devices), validation, read, fits)


def measure_decode(people: int) -> float:
    """Measures how many generated faces `load_split` reads per second of CPU time."""
    faces.Builder.SUBJECTS = {"train": people, "validation": 1, "test": 1}  # 35 faces of each
    with tempfile.TemporaryDirectory() as folder:
        builder = faces.Builder(data_dir=folder)
        prepare(builder)
        source = builder.as_data_source(split="train")
        load_split(source)
        began = time.process_time()
        load_split(source)
        return len(source) / (time.process_time() - began)


def print_table(title: str, machine: Machine, batch_of: dict[int, int]) -> None:
    """Prints one line for each number of images and of devices."""
    print(f"\n{title}; seconds of an epoch by cause")
    print("       images devices    batch       step  all-reduce  validation        read  limit")
    for images in (28_709, 10**6, 10**7, 10**8, 10**9):
        for devices, batch in batch_of.items():
            cost = costs(machine, images, devices, batch)
            note = "" if cost.fits else "; does not fit, read every epoch"
            print(
                f"{images:13,} {devices:7} {batch:8,} {cost.step:10.4g} {cost.all_reduce:11.4g} "
                f"{cost.validation:11.4g} {cost.read:11.4g}  {cost.limit}{note}"
            )


def main() -> None:
    """Measures the reader, prints the assumptions and two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value, words in (
        ("rate", 1e6, "images/s per device; 17 TFLOP/s, a quarter of an H100's float32 peak"),
        ("shortest-step", 5e-4, "s; 28,709 images at batch 128 then take 0.11 s"),
        ("memory", 80e9, "bytes per device"),
        ("bandwidth", 25e9, "bytes/s per device; a 200 Gbit/s link"),
        ("latency", 1e-5, "s per message"),
        ("cores", 12, "cores of the host per device"),
    ):
        parser.add_argument(f"--{name}", type=float, default=value, help=words)
    parser.add_argument(
        "--people",
        type=int,
        default=100,
        help="people to generate for the reader, with 35 faces each",
    )
    arguments = vars(parser.parse_args())
    machine = Machine(decode=measure_decode(arguments.pop("people")), **arguments)
    for name, number in machine._asdict().items():
        print(f"{name:14} {number:14,.6g}  {'measured' if name == 'decode' else 'assumed'}")
    devices = (1, 8, 64, 512)
    print_table("The paper's batch, 128 in total", machine, dict.fromkeys(devices, 128))
    print_table("128 images per device", machine, {count: 128 * count for count in devices})


if __name__ == "__main__":
    main()
