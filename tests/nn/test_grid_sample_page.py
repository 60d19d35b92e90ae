"""The examples of docs/grid_sample.md run with JAX and this module alone."""

from commands import run_examples


def test_the_examples_run():
    run_examples("docs/grid_sample.md", 3)
