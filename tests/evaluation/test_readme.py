"""README's table is that of docs/results.json; results are added to both."""

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
    ferg = {
        "name": "x",
        "dataset": "ferg",
        "protocol": "paper",
        "over_runs": {},
        "command": "main.py",
    }
    (tmp_path / "docs" / "results.json").write_text(json.dumps([ferg, old]))
    return tmp_path


def table(repository):
    text = (repository / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_readme_is_not_stale():
    text = (ROOT / "README.md").read_text()
    assert text == readme.render(ROOT), "stale: run python eval.py table --readme"


def test_the_table_stands_between_the_marks(repository):
    readme.update(repository)
    readme.update(repository)  # again, to the same end
    text = (repository / "README.md").read_text()
    assert text.startswith("before\n" + readme.BEGIN)
    assert text.endswith(readme.END + "\nafter\n")
    fer, ferg = table(repository)
    assert fer[:6] == ["FER-2013", "official split", "70.02", "50.0", "40.0 to 60.0", "1"]
    assert ferg[2:4] == ["99.3", "not run"]
    assert "Mollahosseini" in fer[-1]


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
    assert rows[0][3:11] == [
        *("61.0", "60.0 to 62.0", "1", "47,657", "mine.safetensors", "59.0", "0123456"),
        "`python eval.py evaluate --manual-dir=PATH --flip`",
    ]
    path.write_text(json.dumps({**new, "mirrored": True}))
    readme.update(repository, [path])
    assert [row[3] for row in table(repository)] == ["61.0", "61.0 (mirrored)", "not run"]
    assert "/home" not in (repository / "docs" / "results.json").read_text()


def test_without_marks_it_is_one_sentence(repository):
    (repository / "README.md").write_text("no marks")
    with pytest.raises(UserError, match="results:begin"):
        readme.update(repository)
