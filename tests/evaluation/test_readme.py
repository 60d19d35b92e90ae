"""README's table is generated from docs/results.json; results are added to both."""

import json

import pytest
from commands import ROOT

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation import readme

MARKS = f"{readme.BEGIN}\n{readme.END}"


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{MARKS}\nafter\n")
    old = {
        **{"name": "mine.safetensors", "dataset": "fer2013", "protocol": "official"},
        "over_runs": {"test": {"count": 1, "mean": 0.5, "std": None, "interval95": [0.4, 0.6]}},
    }
    scores = {"count": 3, "mean": 0.6, "std": 0.01, "interval95": [0.575, 0.625]}
    wide = {
        **{"name": "wide", "dataset": "fer2013", "protocol": "official", "parameters": 1_172_989},
        "over_runs": {"validation": scores},
    }
    (tmp_path / "docs" / "results.json").write_text(json.dumps([wide, old]))
    return tmp_path


def table(repository):
    text = (repository / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_readme_is_up_to_date():
    text = (ROOT / "README.md").read_text()
    assert text == readme.render(ROOT), "stale: run python eval.py table --readme"


def test_the_short_table_repeats_figures_of_the_full_one():
    text = (ROOT / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    short = [(row[0], row[3], row[4]) for row in rows if len(row) == 6][2:]
    full = [(row[0], row[4].split(" (")[0], row[5]) for row in rows if len(row) == 11][2:]
    assert len(short) == 5
    assert set(short) <= set(full)


def test_the_table_is_written_between_the_markers(repository):
    readme.update(repository)
    readme.update(repository)  # idempotent
    text = (repository / "README.md").read_text()
    assert text.startswith("before\n" + readme.BEGIN)
    assert text.endswith(readme.END + "\nafter\n")
    wide, fer = table(repository)
    assert wide[:6] == ["FER-2013", "PublicTest (validation)", "", "", "60.0 ± 1.0", "57.5 to 62.5"]
    assert wide[7:9] == ["3", "wide (1,172,989)"]
    assert fer[:3] == ["FER-2013", "PrivateTest", "70.02"]
    assert "Mollahosseini" in fer[3]
    assert fer[4:6] == ["50.0", "40.0 to 60.0"]


def test_a_result_replaces_that_of_the_same_network_and_split(repository, tmp_path):
    new = {
        **{"name": "mine.safetensors", "dataset": "fer2013", "protocol": "official"},
        **{"parameters": 47_657, "commit": "0123456789abcdef", "finished": "2026-11-26"},
        "command": "/home/me/eval.py evaluate --manual-dir /home/me/x --json=/home/me/y --flip",
        "over_runs": {"test": {"count": 1, "mean": 0.61, "std": None, "interval95": None}},
        "without_copies": {"test": {"count": 1, "mean": 0.59, "std": None, "interval95": None}},
        "runs": [{"name": "a", "test": {"accuracy": 0.61, "interval95": [0.6, 0.62]}}],
    }
    path = tmp_path / "new.json"
    path.write_text(json.dumps(new))
    readme.update(repository, [path])
    rows = table(repository)
    assert len(rows) == 2
    assert rows[1][4:] == [
        *("61.0", "60.0 to 62.0", "59.0", "1", "mine.safetensors (47,657)", "0123456"),
        "`python eval.py evaluate --manual-dir=PATH --flip`",
    ]
    path.write_text(json.dumps({**new, "mirrored": True}))
    readme.update(repository, [path])
    assert [row[4] for row in table(repository)] == ["60.0 ± 1.0", "61.0", "61.0 (mirrored)"]
    assert table(repository)[2][2:4] == ["", ""]  # the paper's result is shown once
    assert "/home" not in (repository / "docs" / "results.json").read_text()


def test_missing_markers_give_one_sentence(repository):
    (repository / "README.md").write_text("no marks")
    with pytest.raises(UserError, match="results:begin"):
        readme.update(repository)
