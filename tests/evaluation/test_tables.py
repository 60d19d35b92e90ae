"""Markdown tables: cells and alignment."""

import pytest

from deep_emotion_jax.evaluation.tables import markdown_table, mean_and_deviation


def test_markdown_table_is_padded_and_escaped():
    table = markdown_table(["dataset", "ours"], [["FER-2013", 58.4], ["a|b", None]])
    assert table == (
        "| dataset   |   ours |\n"
        "|:----------|-------:|\n"
        "| FER-2013  |   58.4 |\n"
        "| a\\|b      |   None |\n"
    )


def test_markdown_table_refuses_a_short_row():
    with pytest.raises(ValueError, match="2 cells"):
        markdown_table(["dataset", "ours"], [["FER-2013"]])


def test_mean_and_deviation():
    assert mean_and_deviation(0.637, 0.004, digits=1) == "63.7 ± 0.4"
    assert mean_and_deviation(0.637, None, digits=2) == "63.70"
