"""The HTML report is complete, escaped and self-contained."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import metrics
from deep_emotion_jax.evaluation.html_report import MISTAKES, Predictions, write_page

EVIL = '"><script>alert(1)</script>'
CLASSES = ["angry", EVIL, "sad"]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    count = 90
    labels = np.arange(count) % 3
    logits = rng.normal(0, 1, (count, 3)) + np.eye(3)[labels]
    logits[7] = -50 * np.eye(3)[labels[7]]  # by far the worst mistake
    faces = Split(
        rng.integers(0, 256, (count, 48, 48, 1), dtype=np.uint8),
        labels.astype(np.int32),
        [f"{EVIL}{i}" for i in range(count)],
        [EVIL if i % 2 else "S2" for i in range(count)],
    )
    score = metrics.evaluate(logits, labels)
    calibration = {"validation": {"before": 0.1, "after": 0.05}}
    summary = {
        "dataset": EVIL,
        "dataset_config": "",
        "protocol": "official",
        "classes": CLASSES,
        "parameters": 47_657,
        "over_runs": {
            "validation": {"count": 1, "mean": score.accuracy, "std": None, "interval95": None}
        },
        "without_copies": {
            "validation": {
                **{"count": 1, "mean": 0.4321, "std": None, "interval95": [0.4, 0.5]},
                "images": 80,
            }
        },
        "runs": [
            {
                **{"name": "official-seed-0", "seed": 0, "best_epoch": 3, "restarts": 1},
                **{"chosen": "the last epoch", "problem": EVIL, "temperature": 1.5},
                "calibration_error": calibration,
                "validation": score.to_json(),
            }
        ],
        **{"seconds": 12.0, "images_per_second": 345.0, "finished": "2026-11-26T23:00+00:00"},
        "config": {"seed": 0, "recipe": {"optimizer": EVIL}},
        **{"command": f"main.py {EVIL}", "commit": "abc", "device": "cpu", "fingerprint": "f00d"},
        "versions": {"jax": "0.10.2"},
    }
    folder = tmp_path_factory.mktemp("run")
    temperatures = np.full(count, 1.5)
    write_page(summary, {"validation": Predictions(faces, logits, temperatures)}, folder)
    text = (folder / "report.html").read_text()
    return text, Page(text), folder


def test_strings_from_the_data_are_escaped(page):
    text, parsed, _ = page
    assert not any(tag == "script" for tag, _ in parsed.tags)
    assert "alert(1)</script>" not in text
    assert parsed.text.count(EVIL) > 20


def test_the_page_loads_nothing(page):
    text, parsed, _ = page
    sources = [attributes["src"] for _, attributes in parsed.tags if "src" in attributes]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any(tag in ("link", "a", "iframe") for tag, _ in parsed.tags)
    assert not re.search(r"https?:|url\(|@import", text)


def test_the_worst_mistake_comes_first(page):
    _, parsed, folder = page
    mistakes = parsed.text.partition("lowest probability")[2]
    keys = re.findall(re.escape(EVIL) + r"(\d+)", mistakes)
    assert keys[0] == "7"
    assert 10 < len(keys) <= MISTAKES
    png = base64.b64encode((folder / "calibration.png").read_bytes()).decode()
    (shown,) = (given for _, given in parsed.tags if given.get("alt") == "Calibration curve")
    assert shown["src"] == f"data:image/png;base64,{png}"


@pytest.mark.parametrize(
    "words",
    ["43.2 % (80 images)", "so this accuracy is optimistic", "recipe.optimizer", "1.500", "f00d"],
)
def test_the_page_contains(page, words):
    text = re.sub(r"\s+", " ", page[1].text)
    if words == "43.2 % (80 images)":
        assert re.search(r"training faces: 43\.2 %, 95 % interval 40\.0 to 50\.0 % \(80 im", text)
    else:
        assert words in text
