"""A shard has the rows of `predict`, wherever the damage of a picture shows, and is written once."""

import dataclasses
import errno
import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from mcar_tf import calibrate, export, predict
from mcar_tf.bulk.listing import plan_files, plan_split
from mcar_tf.bulk.shards import predict_shard
from mcar_tf.bulk.task import Counts, ShardTask, find_shards, read_counts
from mcar_tf.serving.served_model import load_served_model
from pipelines.manifest import load_manifest


@pytest.fixture(scope="module")
def exported(untrained_run, tmp_path_factory):
    run = shutil.copytree(untrained_run, tmp_path_factory.mktemp("bulk") / "run")
    calibrate.main(["--run", str(run), "--min-positives", "1"])
    folder = run.parent / "export"
    export.main(["--run", str(run), "--out-dir", str(folder), "--formats", "saved_model", "--pictures", "4"])
    return run, load_served_model(folder)


@pytest.fixture
def damaged(photos):
    """The photos, of which one's damage shows in its header and another's only in decoding it."""
    (photos / "1.png").write_bytes(b"no picture")
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:-200])
    return photos


def make_task(folder, shards, **changes):
    task = ShardTask(folder, shards, False, "jsonl", False, None, batch_size=3, image_size=32)
    return dataclasses.replace(task, **changes)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_shard_has_the_rows_of_predict(form, exported, damaged, tmp_path):
    run, model = exported
    words = ["--run", str(run), "--images", str(damaged), "--out-dir", str(tmp_path), "--batch-size", "3"]
    with pytest.raises(ValueError, match="2 of 4 images could not be read"):
        predict.main([*words, "--all-classes"])
    expected = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    names = [str(damaged / name) for name in ("0.png", "1.png", "2.png", "deeper/3.WEBP")]
    plan_files(tmp_path, {}, names, shard_size=6)
    task = make_task(tmp_path, 1, format=form, all_classes=True)
    assert predict_shard(task, 0, lambda: model) == Counts(2, 2)
    rows = []
    for what in ("predictions", "unreadable"):
        path = tmp_path / f"{what}-00000-of-00001.{form}"
        if form == "jsonl":
            rows += [json.loads(line) for line in path.read_text().splitlines()]
        else:
            found = pyarrow.parquet.read_table(path).to_pylist()
            rows += [{k: v for k, v in row.items() if k != "error" or v is not None} for row in found]
    assert sorted(rows, key=lambda row: row["image"]) == expected
    assert ["error" in row for row in rows] == [False, False, True, True]


def test_a_finished_shard_is_not_predicted_again(exported, photos, tmp_path):
    _, model = exported
    plan_files(tmp_path, {}, [str(photos / "0.png")], shard_size=3)
    task = make_task(tmp_path, 1)
    assert read_counts(task, 0) is None
    first = predict_shard(task, 0, lambda: model)
    assert predict_shard(task, 0, lambda: pytest.fail("the model was loaded")) == first == Counts(1, 0)
    assert [file.name for file in find_shards(tmp_path)] == ["predictions-00000-of-00001.jsonl"]
    task.path(0).unlink()
    assert read_counts(task, 0) is None


def test_a_shard_that_is_gone_half_way_leaves_nothing_that_counts(exported, photos, tmp_path):
    _, model = exported
    plan_files(tmp_path, {}, [str(photos / "0.png")], shard_size=3)
    task = make_task(tmp_path, 1)

    class Broken:
        labels, thresholds = model.labels, model.thresholds

        def run(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_shard(task, 0, Broken)
    assert find_shards(tmp_path) == []
    assert predict_shard(task, 0, lambda: model) == Counts(1, 0)


def test_a_prepared_set_is_predicted_by_its_shards(exported, tiny_set, tmp_path):
    _, model = exported
    split = load_manifest(tiny_set, "tiny").splits["test"]
    plan = plan_split(tmp_path, {}, split)
    assert (plan.shards, plan.pictures) == (1, 16)
    task = make_task(tmp_path, 1, of_records=True)
    assert predict_shard(task, 0, lambda: model) == Counts(16, 0)
    rows = [json.loads(line) for line in task.path(0).read_text().splitlines()]
    assert sorted(row["image"] for row in rows) == [f"test/{i:02}" for i in range(16)]


@pytest.mark.parametrize(
    ("code", "fails"),
    [(errno.EIO, True), (errno.ESTALE, True), (errno.ETIMEDOUT, True), (errno.EACCES, False)],
)
def test_a_failure_of_the_storage_fails_the_shard_and_is_no_row(
    exported, photos, tmp_path, monkeypatch, code, fails
):
    _, model = exported
    plan_files(tmp_path, {}, [str(photos / "0.png"), str(photos / "1.png")], shard_size=3)
    task = make_task(tmp_path, 1)
    whole = Path.read_bytes

    def read_bytes(path):
        if path.name == "1.png":
            raise OSError(code, os.strerror(code), str(path))
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        if not fails:
            assert predict_shard(task, 0, lambda: model) == Counts(1, 1)
            return
        with pytest.raises(OSError, match=re.escape(f"{os.strerror(code)}: '{photos / '1.png'}'")):
            predict_shard(task, 0, lambda: model)
    assert (read_counts(task, 0), find_shards(tmp_path)) == (None, [])
    assert predict_shard(task, 0, lambda: model) == Counts(2, 0)
