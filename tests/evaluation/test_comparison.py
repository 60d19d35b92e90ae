"""The paper's results beside those of finished runs."""

import json

import pytest

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.comparison import PAPER, read_record, results_table


def write_summary(folder, name, **fields):
    scores = {"mean": 0.5, "std": None, "count": 1, "interval95": None}
    summary = {
        "protocol": "official",
        "over_runs": {"test": scores},
        "runs": [{"test": {"interval95": [0.4, 0.6]}}],
        **fields,
    }
    (folder / name).mkdir()
    (folder / name / "summary.json").write_text(json.dumps(summary))


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_each_run_has_a_row_and_the_papers_datasets_come_first(tmp_path):
    write_summary(tmp_path, "a", dataset="synthetic_faces", parameters=47_657)
    write_summary(tmp_path, "b", dataset="fer2013", parameters=968_479)
    write_summary(tmp_path, "c", dataset="fer2013", parameters=47_657)
    write_summary(tmp_path, "d", dataset="folder")
    rows = cells(results_table(tmp_path))
    assert [row[0] for row in rows] == ["FER-2013", "FER-2013", "generated faces", "folder"]
    assert [row[6] for row in rows] == ["968,479", "47,657", "47,657", ""]
    assert [row[7] for row in rows] == ["b", "c", "a", "d"]
    assert rows[0][:6] == ["FER-2013", "official split", "70.02", "50.00", "40.00 to 60.00", "1"]
    assert rows[2][2] == "not given"


def test_the_papers_result_is_shown_for_test_images_only(tmp_path):
    scores = {"mean": 0.5, "std": None, "count": 1, "interval95": [0.4, 0.6]}
    write_summary(tmp_path, "a", dataset="fer2013", over_runs={"validation": scores})
    (row,) = cells(results_table(tmp_path))
    assert row[2:4] == ["not given", "50.00 (validation)"]


def test_missing_runs_are_listed_on_request(tmp_path):
    write_summary(tmp_path, "mine", dataset="jaffe", protocol="subjects")
    rows = cells(results_table(tmp_path, with_missing=True))
    missing = {(row[0], row[1]) for row in rows if row[3] == "not run"}
    assert len(rows) == 7
    assert len(missing) == 6
    assert ("JAFFE", "subject-independent") not in missing
    assert {row[2] for row in rows} == {claim.accuracy for claim in PAPER} | {"not given"}


def test_a_folder_without_runs_gives_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / ("x" * 5000)):
        with pytest.raises(UserError, match="no finished run"):
            results_table(folder)


def test_restarted_runs_are_counted(tmp_path):
    scores = {"mean": 0.5, "std": 0.1, "count": 3, "interval95": [0.4, 0.6]}
    runs = [{"restarts": restarts} for restarts in (0, 2, 1)]
    write_summary(tmp_path, "jaffe", dataset="jaffe", over_runs={"test": scores}, runs=runs)
    assert cells(results_table(tmp_path))[0][5] == "3 (2 restarted)"


@pytest.mark.parametrize(
    "change",
    [{"command": 1}, {"over_runs": {}}, {"over_runs": None}, {"dataset": []}, {"parameters": "x"}],
)
def test_damaged_results_are_refused(tmp_path, change):
    fields = {"dataset": "fer2013", "command": "python main.py"}
    write_summary(tmp_path, "good", **fields)
    assert read_record(tmp_path / "good" / "summary.json")["command"] == "python main.py"
    write_summary(tmp_path, "bad", **{**fields, **change})
    with pytest.raises(UserError, match=r"bad/summary\.json is not the summary of a run"):
        read_record(tmp_path / "bad" / "summary.json")
