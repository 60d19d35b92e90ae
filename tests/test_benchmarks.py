"""The parts of benchmarks/ that do not need PyTorch."""

import json

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks import accelerator, common, needs, photos, quality, scaling_model, small_data
from deep_emotion_jax.nn import conv
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.pretrained import load_pretrained


def test_sides_take_turns_and_the_first_call_is_not_timed(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)

    def side(name, costs):
        costs = iter(costs)

        def call():
            calls.append(name)
            clock[0] += next(costs)

        return call

    sides = {"jax": side("a", [100, 1, 2, 3]), "torch": side("b", [100, 4, 4, 4])}
    times = common.time_in_turn(sides, rounds=3)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert times == {"jax": [1, 2, 3], "torch": [4, 4, 4]}
    # 4, 2 and 4/3 times as fast in the three rounds
    assert common.speed_ratios(times) == {"torch": 2}


def test_short_calls_are_repeated_until_the_turn_ends(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    costs = iter([100, 2, 6, 4])

    def call():
        clock[0] += next(costs)

    assert common.time_in_turn({"jax": call}, rounds=1, seconds=10) == {"jax": [4]}


def test_json_has_results_and_machine(tmp_path):
    common.write_json(tmp_path / "new", "name", {"batch": 1}, [0.5])
    content = json.loads((tmp_path / "new" / "name.json").read_text())
    assert content["settings"] == {"batch": 1}
    assert content["results"] == [0.5]
    assert content["versions"]["jax"] == jax.__version__
    assert {"date", "commit", "machine"} <= content.keys()


def test_flop_of_the_network_match_the_count_of_xla(monkeypatch):
    monkeypatch.setattr(
        conv, "_tiles", lambda *_: False
    )  # the plain convolution, without added zeros
    model = common.make_model()
    counted = jax.jit(model).lower(np.zeros((1, 48, 48, 1), np.float32)).cost_analysis()["flops"]
    # XLA also counts bias, ReLU, standardisation and sampling.
    assert accelerator.FLOP / 3 < counted < 1.1 * accelerator.FLOP / 3


def test_numbers_of_a_case_are_consistent():
    sizes = accelerator.sizes_for("cpu", quick=True)
    limits = {"flop_per_second": 1e12, "bytes_per_second": 1e9}
    row = accelerator.measure_case(2, 8, sizes, limits)
    epoch = row["seconds_500_epochs"] / 500
    assert row["images_per_second"] == pytest.approx(2 * 16 / epoch)
    assert row["milliseconds_per_step"] == pytest.approx(1e3 * epoch / 2)
    assert row["of_arithmetic_limit"] == pytest.approx(
        row["images_per_second"] * 17.39e-6, rel=1e-3
    )
    assert row["of_memory_limit"] == pytest.approx(row["images_per_second"] * 1.207e-3, rel=1e-3)


def test_failed_and_skipped_cases_are_reported(monkeypatch, tmp_path, capsys):
    clock = [0.0]
    monkeypatch.setattr(accelerator.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        accelerator,
        "device_limits",
        lambda _: dict.fromkeys(("flop_per_second", "bytes_per_second"), 1e12),
    )
    sizes = accelerator.Sizes(64, (8, 16, 32, 64), (1, 8), 1, 1, 0.0, deadline=35.0)
    monkeypatch.setattr(accelerator, "sizes_for", lambda *_, **__: sizes)

    def epoch_call(models, batch, images):
        clock[0] += 10
        if batch == 32:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 TB\nlong story")

        def call():
            clock[0] += 1 / batch

        return call

    monkeypatch.setattr(accelerator, "make_epoch_call", epoch_call)
    accelerator.main(["--results", str(tmp_path)])
    rows = json.loads((tmp_path / "accelerator.json").read_text())["results"]["rows"]
    assert [(row["models"], row["batch"]) for row in rows] == [
        *((1, 8), (8, 8), (1, 16), (1, 32), (1, 64), (8, 16))
    ]
    assert [row.get("not_measured") for row in rows] == [
        *(None, None, None, "RESOURCE_EXHAUSTED: 1 TB", "no time left", "no time left")
    ]
    assert "RESOURCE_EXHAUSTED" in capsys.readouterr().out


def test_scaling_model_finds_the_limit():
    machine = scaling_model.Machine(
        rate=1e6,
        shortest_step=5e-4,
        memory=80e9,
        bandwidth=25e9,
        latency=1e-5,
        cores=10,
        decode=5e3,
    )

    def limit(**changes):
        changed = {key: changes.pop(key) for key in machine._fields if key in changes}
        sizes = {"images": 1e6, "devices": 8, "batch": 1024} | changes
        return scaling_model.costs(machine._replace(**changed), **sizes).limit

    assert scaling_model.all_reduce_seconds(machine, 1) == 0
    # Two devices that send half of the gradients or all of them in each direction.
    assert scaling_model.all_reduce_seconds(machine, 2) == 2 * (190_628 / 2 / 25e9 + 1e-5)
    assert limit() == "step"
    assert limit(latency=1e-3) == "all_reduce"
    assert limit(images=2e4, devices=512, batch=65_536) == "validation"
    assert limit(images=1e9) == "read"  # 2.3 TB: read again in every epoch
    assert limit(images=1e9, decode=1e8) == "step"
    once = scaling_model.costs(machine, 1e6, 1, 128)
    four = scaling_model.costs(machine, 1e6, 1, 128, runs=4)
    assert four.step == 1.024 * once.step  # the shortest step takes as long as 500 images


def test_small_data_draws_are_subject_independent_and_balanced():
    people = np.repeat(np.arange(40), 35)
    draws = [small_data.draw_people(people, 300, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0].train, draws[1].train)
    assert set(draws[0].train) != set(draws[2].train)
    for draw in draws:
        assert len(set(draw.train)) == 300
        assert not set(people[draw.train]) & set(people[draw.test])

    labels = np.random.default_rng(0).choice(7, 3000, p=[0.02, 0.02, 0.1, 0.4, 0.2, 0.16, 0.1])
    for balanced in (False, True):
        draw = small_data.draw_subset(labels, 120, 0, balanced=balanced)
        assert len(set(draw.train)) == 120
        assert len(draw.test) == small_data.TEST_FACES
        assert not set(draw.train) & set(draw.test)
        counts = np.bincount(labels[draw.train], minlength=7)
        assert (counts.max() - counts.min() <= 6) == balanced


def test_small_data_table_counts_failures():
    row = {"faces": "generated", "count": 120, "train": 0.99, "test": 0.6}
    rows = [row, row | {"train": 0.94, "test": 0.2}, row | {"faces": "FER-2013"}]
    lines = small_data.table(rows).splitlines()
    assert lines[2] == "| generated | 120 | 2 | 1 | 94.0 | 96.5 | 20.0 | 40.0 |"
    assert lines[-1].startswith("| **all** | | 3 | **1** |")


def test_missing_libraries_give_one_sentence():
    needs.require("json")
    with pytest.raises(SystemExit, match=r"pip install no_such_package_1 no_such_package_2$"):
        needs.require("json", "no_such_package_1", "no_such_package_2")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "cannot read"),
        ("file\n,\n", "row 1"),
        ("name\na.png\n", "column 'file'"),
        ("file,faces\na.png,two\n", "a number"),
        ("file\nb.png\n", "b.png"),
    ],
)
def test_damaged_lists_of_photographs_are_refused(tmp_path, monkeypatch, labels, message):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    if labels:
        (tmp_path / "labels.csv").write_text(labels)
    monkeypatch.setattr("sys.argv", ["photos", str(tmp_path)])
    with pytest.raises(SystemExit, match=message):
        photos.main()


def test_photographs_are_counted_and_scored(tmp_path, monkeypatch, capsys):
    astronaut = Image.fromarray(skimage.data.astronaut())
    astronaut.save(tmp_path / "one.png")
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "none.png")
    two = Image.new("RGB", (600, 320))
    for left in (0, 300):
        two.paste(astronaut.crop((80, 0, 380, 300)), (left, 10))
    two.save(tmp_path / "two.png")
    (tmp_path / "labels.csv").write_text(
        "file,faces,expression\none.png,1,happy\nnone.png,0,\ntwo.png,3,\n"
    )
    monkeypatch.setattr("sys.argv", ["photos", str(tmp_path)])
    photos.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "face", "1", "1", "1", "0"] in [row[:6] for row in rows]
    assert ["several", "faces", "1", "3", "2", "0"] in [row[:6] for row in rows]
    assert ["no", "face", "1", "0", "0", "0"] in [row[:6] for row in rows]
    assert ["happy", "1", "1", "100"] in [row[:4] for row in rows]
    assert ["turned", "by", "20", "degrees", "2", "of", "2", "100.0%", "0.0%"] in rows
    assert any(row[:4] == ["JPEG", "again,", "quality", "75"] for row in rows)


def test_faces_of_low_quality():
    grey = np.full((48, 48), 100, np.uint8)
    stripes = np.tile(np.uint8([0, 200]), (48, 24))
    for name, change in quality.CHANGES.items():
        assert change(stripes).shape == (48, 48), name
        assert change(stripes).dtype == np.uint8, name
    np.testing.assert_array_equal(quality.small(12)(grey), grey)
    inner = quality.small(24)(stripes)[:, 4:-4].astype(int)  # finer than 24 pixels can show
    assert abs(inner - 100).max() <= 5
    np.testing.assert_array_equal(quality.exposed(2)(grey), 39)  # 255 (100 / 255)^2
    assert np.std(quality.noisy(0.05)(grey)) == pytest.approx(0.05 * 255, rel=0.05)
    face = skimage.data.camera()[:48, 200:248]
    losses = [abs(quality.compressed(q)(face).astype(int) - face).mean() for q in (95, 10)]
    assert losses[1] > 3 * losses[0] > 0


def test_accuracy_on_faces_of_low_quality():
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 1)).astype(np.uint8)
    model = load_pretrained("deep_emotion.fer2013").model
    labels = predict_logits(model, images).argmax(1)
    rows = quality.accuracies([model], images, labels)
    assert [row[0] for row in rows] == list(quality.CHANGES)
    assert rows[0][1] == 100
    assert min(row[1] for row in rows) < 100
