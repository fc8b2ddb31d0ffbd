import json
import multiprocessing
import signal
import time

import pytest
from scenes import raw_set

from pipelines import benchmark
from pipelines.benchmarking import labels
from pipelines.benchmarking.own_process import run_alone
from pipelines.benchmarking.speed import photographs
from pipelines.building.sets import build_set
from pipelines.command import Terminated


@pytest.mark.slow
def test_every_way_is_measured_on_the_same_pictures(tmp_path, capsys):
    build_set(raw_set(tmp_path / "source", count=10), tmp_path / "data")
    words = ["--dataset", "tiny", "--data-dir", str(tmp_path / "data"), "--json", str(tmp_path / "rows.json")]
    small = ["--image-size", "16", "--batch-size", "4", "--pictures", "9", "--rounds", "1", "--workers", "1"]
    benchmark.main([*words, *small])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["image_size"] for row in rows] == [16] * 8
    bare, *others = rows
    assert bare["ratio"] == bare["cpu_ratio"] == 1
    for row in others:
        assert row["ratio"] == pytest.approx(row["images_per_second"] / bare["images_per_second"])
        assert row["cpu_ratio"] == pytest.approx(bare["cpu_ms_per_image"] / row["cpu_ms_per_image"])
    printed = capsys.readouterr().out
    assert "8 pictures of tiny" in printed  # whole batches
    assert "make_train_dataset, augment=paper" in printed
    assert "build_set, 1 process" in printed


@pytest.mark.slow
def test_twenty_times_the_pictures_need_hardly_more_memory(tmp_path, capsys):
    benchmark.main(["--memory", "500", "10000", "--json", str(tmp_path / "rows.json")])
    few, many = json.loads((tmp_path / "rows.json").read_text())
    assert (few["pictures"], many["pictures"]) == (500, 10000)
    assert few["tensorflow_mb"] > 100
    for name in ("build_mb", "train_mb", "eval_mb"):
        # 9,500 pictures of 64 x 64 x 3 floats are 467 MB, their records 16 MB, their labels in one shard 7 MB.
        assert many[name] - few[name] < 60, name
    assert "2,048 records" in capsys.readouterr().out


def test_its_own_photographs_are_of_cocos_size():
    from pipelines.pictures import check_picture

    first, second = photographs(2).splits["train"]()
    for sample in (first, second):
        picture = check_picture(sample.image)
        assert (picture.height, picture.width) == (480, 640)
        assert 40_000 < len(picture.encoded) < 200_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "`rounds` must be at least 1"),
        (["--labels", "-1"], "`labels` must be 0 or more"),
        (["--labels", "9", "--memory", "9"], "`memory` not given beside it"),
        (["--memory", "1000", "0"], "`memory` must be at least 1"),
        (["--dataset", "tiny", "--split", "test"], "tiny has no split 'test'; it has train"),
        (["--dataset", "tiny", "--batch-size", "40"], "less than one batch"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, words, message):
    build_set(raw_set(tmp_path / "source", count=3), tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        benchmark.main([*words, "--data-dir", str(tmp_path / "data")])


def test_every_shape_of_labels_is_read_whole(tmp_path, capsys, monkeypatch):
    shapes = {
        name: labels.SHAPES[name] for name in ("our own form, with splits", "JSON lines, to be divided")
    }
    for name in labels.SHAPES:  # `_read` raises unless there is a sample for each row
        assert labels._read(name, 50, tmp_path / name.partition(":")[0]) > (0, 0)
    monkeypatch.setattr(labels, "SHAPES", shapes)
    benchmark.main(["--labels", "2000", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["shape"], row["rows"]) for row in rows] == [(name, 2000) for name in shapes]
    assert all(row["rows_per_second"] > 0 for row in rows)
    assert "JSON lines, to be divided" in capsys.readouterr().out


def test_a_signal_ends_the_measurement_and_its_process():
    def end(*_):
        raise Terminated

    before = set(multiprocessing.active_children())
    started = time.monotonic()
    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(1)
    with pytest.raises(Terminated):
        run_alone(time.sleep, 600)
    signal.signal(signal.SIGALRM, former)
    assert time.monotonic() - started < 60
    assert set(multiprocessing.active_children()) <= before
