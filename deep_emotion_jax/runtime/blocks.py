"""Loops over many images in blocks of one shape, so that their program is compiled once."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm


def blocks(count: int, size: int, title: str) -> Iterator[np.ndarray]:
    """Yields the places of `count` images in blocks, with a progress bar on a terminal.

    Args:
      count: number of images.
      size: number of places in a block; the last image fills up the last block.
      title: of the progress bar.
    """
    for first in tqdm(range(0, count, size), title, unit=" blocks", disable=None, leave=False):
        yield np.minimum(np.arange(first, first + size), count - 1)
