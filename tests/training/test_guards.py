"""A run that can't go on says so in a line and keeps what it has; options that would do nothing are refused."""

import dataclasses
import os
import queue
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.config import FitConfig
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.callbacks import (
    MovingAverage,
    NonFiniteLossError,
    StallWatch,
    StepGuard,
    advice_on_divergence,
    check_finite,
)
from mcar_tf.training.data import check_against_data
from mcar_tf.training.devices import COMPILED_FROM, check_replicas, compilation_pays, make_strategy
from mcar_tf.training.loop import different_steps
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.model import freeze_backbone, make_optimizer
from pipelines.command import describe_error
from pipelines.manifest import load_manifest


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = build_mcar(3, "tiny_resnet", image_size=32, top_n=0, weights=None, backbone_width=0.125)
    model.compile(keras.optimizers.SGD(0.1), loss=binary_cross_entropy)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def batches() -> tf.data.Dataset:
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (8, 32, 32, 3)).astype("float32")
    labels = random.integers(0, 2, (8, 3)).astype("float32")
    content = {"image": images, "labels": labels, "weights": np.ones_like(labels)}
    return tf.data.Dataset.from_tensor_slices(content).batch(4).repeat(2)


def train(model, batches, *callbacks) -> None:
    model.fit(batches, steps_per_epoch=4, callbacks=list(callbacks), verbose=0, shuffle=False)


def test_a_loss_that_is_no_number_stops_the_run_before_anything_is_saved(model, batches):
    whole = model.get_weights()
    broken = batches.enumerate().map(lambda i, b: b | {"image": b["image"] / tf.cast(i != 2, tf.float32)})
    message = r"the loss became nan at step 3 of the epoch. Lower --learning-rate"
    # Looked at after each step, and at the end alone: the step is known.
    for minutes, saves in ((1e-9, [1, 2]), (10, [])):
        saved: list[int] = []
        guard = StepGuard(saved.append, minutes, stop_requested=lambda: False)
        with pytest.raises(NonFiniteLossError, match=message) as caught:
            train(model, broken, guard)
        assert saved == saves
        assert describe_error(caught.value)[0] == 2
        model.set_weights(whole)


def test_the_loss_scale_is_the_first_advice_where_there_is_one(model):
    assert advice_on_divergence(model).startswith("Lower --learning-rate")
    model.optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1024.0)
    model.optimizer.build(model.trainable_variables)
    assert advice_on_divergence(model).startswith("The loss scale is 1024: try --precision float32 first.")


def test_a_step_that_is_still_compiled_is_not_called_stuck(tmp_path):
    (tmp_path / "whole").write_bytes(b"records")
    lines, building = queue.Queue(), [True]
    watch = StallWatch([tmp_path / "whole"], seconds=0.5, say=lines.put, building=lambda: building[0])
    watch.on_epoch_begin(0)
    assert lines.get(timeout=30).endswith(
        "the files can be read; the training step's graph is probably still being built or compiled"
    )
    building[0] = False
    found = [lines.get(timeout=30) for _ in range(2)]  # the first may have been on its way
    watch.close()
    assert found[-1].endswith("so the input pipeline or the device is stuck or very slow")


def test_a_stalled_input_pipeline_is_named(tmp_path):
    whole, stuck = tmp_path / "whole", tmp_path / "stuck"
    whole.write_bytes(b"records")
    os.mkfifo(stuck)  # nobody writes into it, so who opens it waits
    said = {whole: queue.Queue(), stuck: queue.Queue()}
    for file, lines in said.items():
        watch = StallWatch([whole, file], seconds=5.0, say=lines.put)
        watch.on_epoch_begin(0)
        watch.last_step -= 100.0
        line = lines.get(timeout=30)
        watch.close()
        assert re.match(r"no step for 1\d\d s: ", line)
        assert ("stalled" in line) == (file == stuck)
        assert (str(stuck) in line) == (file == stuck)


def test_weights_that_are_no_numbers_are_not_saved_although_the_loss_was_one(model):
    check_finite(model)
    kernel = model.classifier.weights[0]
    kernel.assign(kernel.value * np.nan)
    with pytest.raises(NonFiniteLossError, match=r"classifier/\w+ is no longer finite"):
        check_finite(model)


def test_a_frozen_backbone_stays_as_it_is_until_it_is_trained(model, batches):
    def weights():
        return [w.copy() for w in model.backbone.get_weights()]

    before, head = weights(), model.classifier.get_weights()[0]
    freeze_backbone(model, True)
    train(model, batches)
    for a, b in zip(before, weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # BatchNorm's statistics too
    assert np.abs(model.classifier.get_weights()[0] - head).max() > 0
    freeze_backbone(model, False)
    train(model, batches)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, weights(), strict=True) if a.size > 1)


def test_the_average_follows_weights_and_statistics_and_gives_way_again(model, batches):
    average = MovingAverage(model, decay=0.3)
    expected = [w.copy() for w in model.get_weights()]

    def follow(batch, logs):
        step = batch + 1
        kept = min(0.3, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13 = 0.31: from there on 0.3
        for mean, weight in zip(expected, model.get_weights(), strict=True):
            mean *= kept
            mean += (1 - kept) * weight

    train(model, batches, average, keras.callbacks.LambdaCallback(on_train_batch_end=follow))
    trained = model.get_weights()
    with average.in_place():
        for mean, weight in zip(expected, model.get_weights(), strict=True):
            np.testing.assert_allclose(mean, weight, atol=1e-5)
    for a, b in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("interrupted_at", [0, 1, 5])
def test_trained_weights_come_back_although_a_signal_broke_in(model, batches, interrupted_at):
    average = MovingAverage(model, decay=0.3)
    train(model, batches, average)
    trained = model.get_weights()
    with pytest.raises(KeyboardInterrupt), average.in_place():
        average.trained = InterruptedOnce(average.trained, interrupted_at)
    average.give_way()
    for a, b in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    average.give_way()  # without effect
    for a, b in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class InterruptedOnce(list):
    """A list whose first iteration is interrupted before item `at`."""

    def __init__(self, items, at):
        super().__init__(items)
        self.at = at

    def __iter__(self):
        for index, item in enumerate(super().__iter__()):
            if index == self.at:
                self.at = None
                raise KeyboardInterrupt
            yield item


def test_steps_are_accumulated_to_the_update_of_the_whole_batch():
    # Two gradients 1 and 3 of a weight 0, clipped to a norm of 0.5 after their mean 2: one update of -0.1 * 0.5.
    config = FitConfig(
        learning_rate=0.1, head_learning_rate=0.1, weight_decay=0, clip_norm=0.5, accumulate_steps=2
    )
    optimizer = make_optimizer(config, steps_per_epoch=10)
    weight = keras.Variable(np.zeros(1, np.float32))
    optimizer.build([weight])
    for gradient in (1.0, 3.0):
        assert float(weight.value[0]) == 0
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
    assert float(weight.value[0]) == pytest.approx(-0.05)
    assert int(optimizer.iterations) == 1


def test_the_rate_drops_after_as_many_updates_as_make_the_epochs():
    config = FitConfig(learning_rate=0.1, drop_epochs=[3], accumulate_steps=4)
    schedule = make_optimizer(config, steps_per_epoch=10)._learning_rate
    # 3 epochs of 10 steps are 7.5 updates of 4.
    assert [round(float(schedule(i)), 3) for i in (6, 7, 8)] == [0.1, 0.1, 0.01]


@pytest.mark.parametrize(("kind", "sync"), [("mirrored", False), ("auto", True)])
def test_options_for_several_devices_are_refused_on_one(kind, sync):
    option = "--sync-batch-norm" if sync else "--strategy mirrored"
    with pytest.raises(ValueError, match=f"{option} needs several devices to train on. There is 1 CPU"):
        make_strategy(kind, sync)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_backbone_epochs": 1, "weights": "none"}, "would keep random weights"),
        ({"freeze_backbone_epochs": 61}, r"must be in \[0, 60\], the epochs. Received: 61"),
        ({"ema_decay": 1.0}, r"`--ema-decay` must be in \[0, 1\)"),
        ({"accumulate_steps": 0}, "`--accumulate-steps` must be in \\[1, 65536\\]"),
        ({"augment": "gridmask", "deterministic": True}, "it can't be --deterministic"),
        ({"clip_norm": -1.0}, "`--clip-norm` must be 0 or more"),
        ({"early_stopping_epochs": -1}, "`--early-stopping-epochs` must be in \\[0, 65536\\]"),
    ],
)
def test_values_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**options).check()


@pytest.mark.parametrize(
    ("gpus", "steps", "change", "pays"),
    [
        (1, COMPILED_FROM, {}, True),
        (1, COMPILED_FROM - 1, {}, False),
        (1, 2 * COMPILED_FROM - 1, {"compilations": 2}, False),
        (1, 2 * COMPILED_FROM, {"compilations": 2}, True),
        (1, COMPILED_FROM, {"deterministic": True}, False),
        (1, COMPILED_FROM, {"precision": "float32"}, False),
        (2, COMPILED_FROM, {}, False),
        (0, COMPILED_FROM, {}, False),
    ],
)
def test_long_runs_in_half_precision_on_one_gpu_are_compiled(gpus, steps, change, pays, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a card"] * gpus)
    usual = {"compilations": 1, "precision": "mixed_float16", "deterministic": False}
    assert compilation_pays(max(gpus, 1), steps, **usual | change) == pays


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 1),
        ({"one_look_share": 0.5}, 2),
        ({"one_look_share": 1.0}, 1),
        ({"freeze_backbone_epochs": 4}, 2),
        ({"one_look_share": 0.5, "freeze_backbone_epochs": 4}, 3),
        ({"one_look_share": 0.4, "freeze_backbone_epochs": 4}, 2),
    ],
)
def test_each_different_step_of_a_run_is_compiled_once(options, steps):
    assert different_steps(FitConfig(epochs=10, **options)) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 15, "accumulate_steps": 2}, "--accumulate-steps works on one device, not on 3"),
        (
            {"batch_size": 15, "accumulate_steps": 1, "xla": True},
            "--xla works on one device, not on 3: leave it",
        ),
        (
            {"batch_size": 16, "accumulate_steps": 1},
            "`--batch-size` must be a multiple of 3, the devices. Received: 16",
        ),
    ],
)
def test_options_for_one_device_are_refused_on_several(options, message):
    with pytest.raises(ValueError, match=message):
        check_replicas(3, **options)


def test_early_stopping_needs_a_validation_split(tiny_set):
    manifest = load_manifest(tiny_set, "tiny")
    config = FitConfig(dataset="tiny", data_dir=tiny_set, top_n=2, batch_size=4, early_stopping_epochs=1)
    check_against_data(config, manifest)
    splits = {name: split for name, split in manifest.splits.items() if name != "validation"}
    with pytest.raises(ValueError, match="needs a validation split, which tiny has not"):
        check_against_data(config, dataclasses.replace(manifest, splits=splits))
