import csv

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from deep_emotion_jax.evaluation import figures as report

NAMES = ["angry", "disgust", "fear"]
MATRIX = np.array([[6, 1, 1], [0, 0, 0], [2, 0, 8]])


@pytest.fixture
def figures(monkeypatch):
    """Keeps the figures when they are saved, so that tests can inspect them."""
    saved = []
    savefig = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def _check_picture(path, width, height):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size[0] >= width
        assert image.size[1] >= height
        assert np.asarray(image.convert("L")).std() > 5


def _records(count=12):
    return [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "validation_loss": 2.2 / epoch,
            "train_accuracy": 0.05 * epoch,
            "validation_accuracy": 0.5 - 0.01 * (epoch - 8) ** 2,
            "learning_rate": 0.005,
        }
        for epoch in range(1, count + 1)
    ]


def test_confusion_matrix_png_shows_shares_and_counts(tmp_path, figures):
    report.confusion_matrix_png(MATRIX, NAMES, tmp_path / "matrix.png", "Test split")
    _check_picture(tmp_path / "matrix.png", 400, 400)
    axes = figures[0].axes[0]
    assert axes.get_title() == "Test split"
    cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    # Positions are (predicted, true); the absent class "disgust" has no shares.
    assert cells == {
        (0, 0): "75.0 %\n6",
        (1, 0): "12.5 %\n1",
        (2, 0): "12.5 %\n1",
        (0, 2): "20.0 %\n2",
        (1, 2): "0.0 %\n0",
        (2, 2): "80.0 %\n8",
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "angry (8)",
        "disgust (0)",
        "fear (10)",
    ]


def test_confusion_matrix_csv_reads_back(tmp_path):
    names = ["angry", "disgust, contempt", "fear"]
    report.confusion_matrix_csv(MATRIX, names, tmp_path / "matrix.csv")
    with open(tmp_path / "matrix.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == names
    assert [row[0] for row in rows] == names
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), MATRIX)


@pytest.mark.parametrize("draw", [report.confusion_matrix_csv, report.confusion_matrix_png])
def test_a_confusion_matrix_of_another_size_than_its_names_raises_an_error(tmp_path, draw):
    arguments = (MATRIX, NAMES[:2], tmp_path / "matrix")
    with pytest.raises(ValueError, match="2 names"):
        draw(*arguments, *(["title"] if draw is report.confusion_matrix_png else []))
    assert not list(tmp_path.iterdir())


def test_curves_mark_the_best_epoch(tmp_path, figures):
    report.curves_png(_records(), tmp_path / "curves.png")
    _check_picture(tmp_path / "curves.png", 800, 600)
    loss, accuracy, rate = figures[0].axes
    lines = {line.get_label(): line.get_xydata() for line in accuracy.lines}
    np.testing.assert_allclose(lines["train"][:, 1], 5 * np.arange(1, 13))
    np.testing.assert_allclose(lines["best: 50.00 % at epoch 8"], [[8, 50]])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), 2 / np.arange(1, 13))
    assert [text.get_text() for text in loss.get_legend().texts] == ["train", "validation"]
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 0.005)


def test_curves_mark_the_last_of_equally_good_epochs(tmp_path, figures):
    records = [{"epoch": e, "validation_accuracy": a} for e, a in [(1, 0.2), (2, 0.4), (3, 0.4)]]
    report.curves_png(records, tmp_path / "curves.png")
    assert any("at epoch 3" in line.get_label() for line in figures[0].axes[1].lines)


def test_curves_mark_the_given_epoch(tmp_path, figures):
    report.curves_png(_records(), tmp_path / "curves.png", best_epoch=3)
    lines = {line.get_label(): line.get_xydata() for line in figures[0].axes[1].lines}
    np.testing.assert_allclose(lines["best: 25.00 % at epoch 3"], [[3, 25]])


def test_a_confusion_matrix_has_its_accuracy_in_the_title(tmp_path, figures):
    report.write_confusion(MATRIX, NAMES, tmp_path / "confusion_test", "fer2013 test")
    assert figures[0].axes[0].get_title() == "fer2013 test: 77.78%"
    assert {path.name for path in tmp_path.iterdir()} == {
        "confusion_test.png",
        "confusion_test.csv",
    }


def test_curves_skip_missing_values(tmp_path, figures):
    records = _records()
    for record in records:
        del record["learning_rate"]
        if record["epoch"] % 5:  # Validation on epochs 5 and 10 only.
            record["validation_accuracy"] = None
            del record["validation_loss"]
    report.curves_png(records, tmp_path / "curves.png")
    loss, accuracy = figures[0].axes
    validation = {line.get_label(): line for line in loss.lines}["validation"]
    np.testing.assert_array_equal(validation.get_xdata(), [5, 10])
    assert any("at epoch 10" in line.get_label() for line in accuracy.lines)


def test_curves_without_validation_mark_nothing(tmp_path, figures):
    report.curves_png([{"epoch": 1, "train_loss": 1.5}], tmp_path / "curves.png")
    assert [len(axes.lines) for axes in figures[0].axes] == [1, 0]


def test_curves_without_epochs_raise_an_error(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        report.curves_png([], tmp_path / "curves.png")


def test_robustness_draws_means_and_deviations(tmp_path, figures):
    three_runs = {"shift": [[0.5, 0.2], [0.6, 0.3], [0.7, 0.7]]}
    curves = {"with": three_runs, "without": {"shift": [[0.4, 0.1]]}}
    report.robustness_png(curves, [0, 0.1], tmp_path / "robustness.png", "Changed faces")
    (panel,) = figures[0].axes
    many, one = panel.containers
    np.testing.assert_allclose(many.lines[0].get_xydata(), [[0, 60], [10, 40]])
    np.testing.assert_allclose(
        [bar[:, 1] for bar in many.lines[2][0].get_segments()],
        [[50, 70], [40 - 700**0.5, 40 + 700**0.5]],
    )
    np.testing.assert_allclose(one.lines[0].get_ydata(), [40, 10])
    assert not one.has_yerr
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["with", "without"]


def test_regions_share_one_scale_and_skip_empty_classes(tmp_path, figures):
    rng = np.random.default_rng(0)
    faces = rng.uniform(size=(3, 12, 12))
    maps = np.stack([np.full((12, 12), 0.2), np.full((12, 12), np.nan), np.full((12, 12), 0.6)])
    report.regions_png(maps, faces, NAMES, tmp_path / "regions.png", "Regions")
    _check_picture(tmp_path / "regions.png", 600, 400)
    axes = figures[0].axes
    assert [panel.get_title() for panel in axes[:3]] == NAMES
    for k in (0, 2):
        below, above = axes[3 + k].images
        np.testing.assert_array_equal(below.get_array(), faces[k])
        np.testing.assert_array_equal(above.get_array(), maps[k])
        assert above.get_clim() == (0, 0.6)
    assert [text.get_text() for text in axes[4].texts] == ["no image"]


def test_invalid_region_maps_raise_an_error(tmp_path):
    maps = np.zeros((3, 8, 8))
    with pytest.raises(ValueError, match="shape"):
        report.regions_png(maps, maps[:2], NAMES, tmp_path / "regions.png", "Regions")
    with pytest.raises(ValueError, match="no map"):
        report.regions_png(maps * np.nan, maps, NAMES, tmp_path / "regions.png", "Regions")


def test_regions_of_a_network_that_ignores_the_face_are_drawn(tmp_path):
    maps = np.zeros((3, 8, 8))
    report.regions_png(maps, maps, NAMES, tmp_path / "regions.png", "Regions")
    _check_picture(tmp_path / "regions.png", 600, 400)
