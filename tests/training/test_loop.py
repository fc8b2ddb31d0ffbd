"""The parts of a run's training, each by itself: preparing, an epoch, what closes it, the result."""

import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest

from mcar_tf.config import FitConfig
from mcar_tf.runs.opening import open_run_folder
from mcar_tf.training.loop import Training, close_epoch, prepare, train_epoch, write_result
from mcar_tf.training.run import read_result
from mcar_tf.training.signals import Stopping
from mcar_tf.training.workers import OneProcess
from pipelines.manifest import load_manifest


@pytest.fixture
def run(tiny_set, tmp_path):
    """A run of 4 steps an epoch that has been prepared."""
    config = FitConfig(
        dataset="tiny", data_dir=tiny_set, backbone="tiny_resnet", backbone_width=0.25, weights="none",
        image_size=32, batch_size=4, epochs=2, top_n=2,
    )  # fmt: skip
    manifest = load_manifest(tiny_set, "tiny")
    with open_run_folder(config, tmp_path / "run", manifest) as place:
        yield prepare(config, place, manifest, Stopping(), OneProcess())


def test_parts_of_a_run(run, capsys):
    assert (run.state.epoch, run.batches.steps_per_epoch, run.panel.shape[0]) == (0, 4, 8)
    assert run.checkpoints.latest() is None

    row, predictions = train_epoch(run)
    assert list(row) == [
        *("epoch", "loss", "global_loss", "local_loss", "learning_rate", "images_per_second"),
        *("val_mAP_global", "val_mAP_local", "val_mAP_fused", "seconds"),
    ]
    assert (row["epoch"], row["learning_rate"]) == (1, pytest.approx(0.001))
    assert len(predictions) == 16
    assert run.state.history == []  # nothing of it is kept until it is closed

    close_epoch(run, row, predictions)
    assert (run.state.epoch, run.state.best) == (1, row)
    assert run.checkpoints.latest().name == "epoch-0001-step-0000000"
    assert {path.name for path in (run.place.path / "checkpoints").glob("*.h5")} == {
        "best.weights.h5",
        "last.weights.h5",
    }
    with (run.place.path / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    about_the_first_step, its_time, line = capsys.readouterr().out.splitlines()
    assert about_the_first_step.startswith(
        "reading the first pictures, and building the training step's graph"
    )
    assert its_time.startswith("the first step took ")
    assert line.startswith("epoch 1/2  loss ")

    write_result(run)
    assert json.loads((run.place.path / "metrics.json").read_text())["test"]["images"] == 16


def test_a_signal_between_the_last_step_and_the_end_of_an_epoch_waits_until_it_is_closed(run):
    row, predictions = train_epoch(run)
    assert run.stopping.can_wait
    run.stopping.handle(2, None)
    with pytest.raises(KeyboardInterrupt):
        close_epoch(run, row, predictions)
    assert run.checkpoints.latest().name == "epoch-0001-step-0000000"


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_folder_that_is_gone_ends_the_run_in_one_sentence(run, tmp_path, how):
    row, predictions = train_epoch(run)
    if how == "moved":
        run.place.path.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(run.place.path)
    for write in (lambda: close_epoch(run, row, predictions), lambda: run.save(3), lambda: write_result(run)):
        with pytest.raises(FileNotFoundError, match="is no longer the folder that this run writes"):
            write()
    assert not run.place.path.exists()
    assert run.state.epoch == 0


def test_without_a_split_to_measure_on_a_run_is_complete_all_the_same(run):
    run.batches = dataclasses.replace(run.batches, test=None)
    write_result(run)
    assert (run.place.path / "metrics.json").read_text() == "{}\n"
    config = dataclasses.replace(run.config, eval_split="none")
    assert read_result(run.place.path, config) == {}
    with pytest.raises(
        ValueError, match=r"metrics\.json holds no metrics of test, .* Measure them: .*evaluate"
    ):
        read_result(run.place.path, run.config)


@pytest.mark.parametrize(
    ("epoch", "steps", "options", "seconds"),
    [
        (
            0,
            0,
            {},
            30 + (3 * 8 + 4) / 3,
        ),  # 30 steps; three validations of 8 batches and a result of 4, at a third
        (1, 4, {}, 16 + (2 * 8 + 4) / 3),
        # Two epochs look once; a later step, and each prediction, looks at two regions more.
        (0, 0, {"one_look_share": 0.67}, 20 + 3 * (10 + (3 * 8 + 4) / 3)),
        (1, 4, {"one_look_share": 0.67}, 6 + 3 * (10 + (2 * 8 + 4) / 3)),
        (1, 4, {"one_look_share": 0.67, "local_size": 16}, 6 + 1.5 * (10 + (2 * 8 + 4) / 3)),
        (2, 4, {"one_look_share": 0.67}, 6 + (8 + 4) / 3),  # the steps that are timed look twice already
    ],
)
def test_the_time_left_counts_the_looks_that_are_still_to_come(epoch, steps, options, seconds):
    config = FitConfig(image_size=32, epochs=3, batch_size=2, top_n=2, **options)
    batches = SimpleNamespace(steps_per_epoch=10, validation_examples=16, test=SimpleNamespace(examples=8))
    run = SimpleNamespace(config=config, batches=batches, state=SimpleNamespace(epoch=epoch, steps=steps))
    assert Training.seconds_left(run, 1.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("epoch", "options", "share"),
    [
        (0, {}, 1 / 3),  # of a step's time: a step looks at the picture and at two regions of its size
        (0, {"one_look_share": 0.67}, 1.0),  # the steps that are timed look once, too
        (2, {"one_look_share": 0.67}, 1 / 3),
        (0, {"glance_size": 16, "local_size": 16}, 4 / 3),  # the plain backbone sees all pixels
    ],
)
def test_the_time_of_the_baseline_follows_from_what_it_sees(epoch, options, share):
    config = FitConfig(image_size=32, epochs=3, batch_size=2, top_n=2, **options)
    batches = SimpleNamespace(steps_per_epoch=10, validation_examples=16, test=SimpleNamespace(examples=8))
    run = SimpleNamespace(config=config, batches=batches, state=SimpleNamespace(epoch=epoch, steps=4))
    steps = 30 + (3 * 8 + 4) / 3
    assert Training.seconds_of_baseline(run, 1.0) == pytest.approx(share * steps)
