"""What docs/grid_sample.md shows works as it stands there, with JAX and this module alone."""

import re

from commands import ROOT


def test_the_examples_run():
    page = (ROOT / "docs" / "grid_sample.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/grid_sample.md", "exec"), names)
