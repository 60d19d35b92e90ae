"""What docs/grid_sample.md shows works as it stands there, with JAX and this module alone."""

from commands import run_examples


def test_the_examples_run():
    run_examples("docs/grid_sample.md", 3)
