"""Hostile pictures through all that opens pictures: none ends a command, none takes long, good ones are answered.

At full size, 10,000 of them: `pytest -m slow tests/test_hostile_pictures.py`.
"""

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hostile import file_of, hostile_bytes

from mcar_tf import predict
from mcar_tf.evaluating import photos
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from mcar_tf.runs.loading import load_run

COUNTS = [60, pytest.param(10_000, marks=pytest.mark.slow)]
LONGEST_SECONDS = 5
GOOD = file_of(np.full((30, 40, 3), 90, np.uint8))


class Longest:
    """The longest time that one call took."""

    def __init__(self):
        self.seconds = 0.0

    def timed(self, function):
        def call(*words):
            started = time.process_time()
            try:
                return function(*words)
            finally:
                self.seconds = max(self.seconds, time.process_time() - started)

        return call


@pytest.fixture(scope="module")
def preview():
    file = Path(__file__).parent.parent / "examples" / "phone_preview.py"
    spec = importlib.util.spec_from_file_location("phone_preview", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("count", COUNTS)
def test_no_picture_ends_predict_or_delays_it(untrained_run, tmp_path, monkeypatch, count):
    folder, longest = tmp_path / "pictures", Longest()
    folder.mkdir()
    (folder / "good.jpg").write_bytes(GOOD)
    for i, content in enumerate(hostile_bytes(count)):
        (folder / f"{i:05}{('.jpg', '.png', '.webp', '.tif')[i % 4]}").write_bytes(content)
    monkeypatch.setattr(photos, "read_pixels", longest.timed(photos.read_pixels))
    words = ["--run", str(untrained_run), "--images", str(folder), "--out-dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=rf"of {count + 1} images could not be read") as error:
        predict.main([*words, "--draw"] if count < 1000 else words)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    answers = [row for row in rows if "error" not in row]
    assert len(rows) == count + 1
    left_out = int(str(error.value).split(" ")[0])
    assert len(answers) + left_out == count + 1
    assert left_out > count // 4
    assert Path(answers[-1]["image"]).name == "good.jpg"
    assert longest.seconds < LONGEST_SECONDS


@pytest.mark.parametrize("count", COUNTS)
def test_no_picture_ends_the_exported_forms_or_the_preview(untrained_run, preview, tmp_path, count):
    run = load_run(untrained_run)
    write_saved_model(run.model, run.classes, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    runner = load_runner(convert_tflite(run.model))
    times = {name: Longest() for name in ("server", "preview", "phone")}
    serve, read = (
        times["server"].timed(lambda data: served(encoded=data)),
        times["preview"].timed(preview.read_picture),
    )
    expected = served(encoded=tf.constant([GOOD]))["probs"].numpy()[0]
    answers = dict.fromkeys(times, 0)
    for content in hostile_bytes(count):
        outputs = serve(tf.constant([content, GOOD]))
        np.testing.assert_allclose(outputs["probs"][1], expected, atol=1e-5)
        answers["server"] += bool(outputs["valid"][0])
        (tmp_path / "picture").write_bytes(content)
        try:
            picture = read(tmp_path / "picture")
        except (ValueError, OSError):
            continue
        answers["preview"] += 1
        pixels = np.asarray(picture.convert("RGB").resize((32, 32)), np.float32)[None]
        probs = times["phone"].timed(lambda pixels: runner(image=pixels))(pixels)["probs"]
        assert np.isfinite(probs).all()
        answers["phone"] += 1
    assert all(count // 20 < number < count for number in answers.values())
    assert {name: one.seconds for name, one in times.items() if one.seconds >= LONGEST_SECONDS} == {}
