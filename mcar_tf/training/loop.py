"""Trains one run from a config and a prepared set, up to the finished run folder.

A run is a sequence of epochs, and each epoch is one call of Keras' `fit` on a dataset of its own. Variables hold all
that carries over from step to step, and `RunState` holds all that carries over from epoch to epoch, so a checkpoint
of both is the whole run.
"""

import contextlib
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.columns import VALIDATION_MAP
from mcar_tf.evaluating.metrics_file import write_metrics
from mcar_tf.evaluating.predicting import predict_dataset
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import evaluate_predictions
from mcar_tf.models.mcar import MCAR
from mcar_tf.reporting.drawing import encode_png
from mcar_tf.reporting.examples import draw_examples
from mcar_tf.runs.folder import (
    METRICS,
    append_history,
    deciding_options,
    learnt_from,
    versions,
    write_history,
)
from mcar_tf.runs.opening import OpenRun
from mcar_tf.runs.splits import own_splits
from mcar_tf.runs.weights import write_weights
from mcar_tf.training.batches import Batches, open_batches
from mcar_tf.training.callbacks import (
    FirstStep,
    Forecast,
    MovingAverage,
    NonFiniteLossError,
    ProgressBar,
    ResumedMeans,
    StallWatch,
    StepCallbacks,
    StepGuard,
    StopRequestedError,
)
from mcar_tf.training.checkpoints import STATE, Checkpoints, find_checkpoint
from mcar_tf.training.devices import check_replicas, compilation_pays
from mcar_tf.training.model import build_trainable, freeze_backbone
from mcar_tf.training.signals import Stopping
from mcar_tf.training.state import WAITED_LONG, RunState, epoch_line
from mcar_tf.training.tensorboard import TensorBoardLog
from mcar_tf.training.workers import OneProcess
from pipelines.augment import UNSEEDED
from pipelines.command import Terminated
from pipelines.files import write_bytes, write_text
from pipelines.manifest import Manifest, Part

PREDICTING = 1 / 3  # time to predict a batch, as a share of a training step: it has no backward pass
say = functools.partial(print, flush=True)  # so that a log file shows each line at once


class Stopwatch:
    """Adds up the seconds spent inside its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self.started


def one_look_epochs(config: FitConfig) -> int:
    """How many epochs, at the start of a run, train the global stream alone."""
    return round(config.one_look_share * config.epochs)


def different_steps(config: FitConfig) -> int:
    """How many different training steps a run has, each with a graph of its own: with one look, frozen, whole."""
    changes = {one_look_epochs(config), config.freeze_backbone_epochs} - {0}
    return 1 + sum(epoch < config.epochs for epoch in changes)


def pixels_seen(config: FitConfig) -> float:
    """The pixels of a picture that the network sees in a step of two looks, over those of its first look."""
    first = config.glance_size or config.image_size
    return 1.0 + config.top_n * ((config.local_size or first) / first) ** 2


def steps_of_predicting(config: FitConfig, batches: Batches, epochs: int) -> float:
    """What validation after each of so many epochs and the final result take, in training steps."""
    test = batches.test.examples if batches.test else 0
    return PREDICTING * (epochs * batches.validation_examples + test) / config.batch_size


@dataclasses.dataclass
class Training:
    """Everything that the functions below share about a run in training.

    Attributes:
        average: moving average of the weights, or None; if there is one, it is evaluated and saved instead of them.
        panel: pictures whose regions are shown after each epoch, (B, S, S, 3) in [0, 255].
        writing: measures the time that checkpoints and logs take.
        first_step: says what happens before the first step ends.
        forecast: says about how long the run takes.
    """

    config: FitConfig
    place: OpenRun
    classes: tuple[str, ...]
    stopping: Stopping
    workers: OneProcess
    strategy: tf.distribute.Strategy
    batches: Batches
    model: MCAR
    average: MovingAverage | None
    checkpoints: Checkpoints
    state: RunState
    log: TensorBoardLog
    panel: tf.Tensor
    writing: Stopwatch = dataclasses.field(default_factory=Stopwatch)
    first_step: FirstStep = dataclasses.field(default_factory=lambda: FirstStep(say))

    def __post_init__(self) -> None:
        afterwards = self.seconds_of_baseline if self.config.compare_baseline and self.config.top_n else None
        self.forecast = Forecast(self.seconds_left, self.batches.steps_per_epoch, say, afterwards)

    def seconds_left(self, step_seconds: float) -> float:
        """About how long the rest of the run takes if a step takes so long: all steps, validation and the result."""
        epochs = self.config.epochs - self.state.epoch
        steps = epochs * self.batches.steps_per_epoch - self.state.steps
        once = max(0, one_look_epochs(self.config) - self.state.epoch) * self.batches.steps_per_epoch
        later = 1.0  # time of the steps after those that look once, in steps as they are now
        if once:
            once -= self.state.steps
            later = pixels_seen(self.config)
        return step_seconds * (
            once + later * (steps - once + steps_of_predicting(self.config, self.batches, epochs))
        )

    def seconds_of_baseline(self, step_seconds: float) -> float:
        """About how long the plain backbone takes afterwards, if a step of this run takes so long now."""
        first = self.config.glance_size or self.config.image_size
        looks = 1.0 if one_look_epochs(self.config) > self.state.epoch else pixels_seen(self.config)
        epochs = self.config.epochs
        steps = epochs * self.batches.steps_per_epoch + steps_of_predicting(self.config, self.batches, epochs)
        return step_seconds * steps * (self.config.image_size / first) ** 2 / looks

    def save(self, steps: int) -> None:
        """Write a checkpoint.

        Args:
            steps: how many steps of the current epoch are done.
        """
        self.place.check()
        with self.writing:
            state = dataclasses.asdict(self.state) | {"steps": steps}
            self.checkpoints.save(self.state.epoch, steps, state)

    def must_stop(self) -> bool:
        """Whether to save and stop. Only the leading worker, the one that saves, decides this, and it stops first."""
        return self.workers.leads and self.stopping.requested

    def weights_in_use(self) -> AbstractContextManager[None]:
        """Inside a `with` block, the model has the weights that are evaluated and saved."""
        return self.average.in_place() if self.average else contextlib.nullcontext()


def train(
    config: FitConfig, place: OpenRun, manifest: Manifest, stopping: Stopping, workers: OneProcess
) -> None:
    """Train a run from its current state to its end. `metrics.json` is written last."""
    run = prepare(config, place, manifest, stopping, workers)
    began, epochs_before = time.monotonic(), run.state.epoch
    while run.state.epoch < config.epochs and not run.state.out_of_patience(config.early_stopping_epochs):
        row, predictions = train_epoch(run)
        close_epoch(run, row, predictions)
    if run.state.epoch > epochs_before:
        seconds = run.writing.seconds
        share = seconds / (time.monotonic() - began)
        say(f"checkpoints and logs took {seconds:.1f} s, {share:.1%} of the time of training")
        waited = run.batches.clock.share_of_all
        if waited >= WAITED_LONG:
            say(
                f"training waited for pictures for {waited:.0%} of its steps' time: --cache-dir decodes and resizes"
                " them once, and more processor cores decode more at once"
            )
    write_result(run)


def prepare(
    config: FitConfig, place: OpenRun, manifest: Manifest, stopping: Stopping, workers: OneProcess
) -> Training:
    """Connect the devices, open the pictures, build the model and restore the last checkpoint.

    A new run replaces what is in its folder only once its model is built, so that nothing is lost if an earlier step
    fails.
    """
    strategy = workers.connect(config.strategy, config.sync_batch_norm)
    check_replicas(
        strategy.num_replicas_in_sync,
        batch_size=config.batch_size,
        accumulate_steps=config.accumulate_steps,
        xla=config.xla,
    )
    if config.augment in UNSEEDED:
        say(
            f"--augment {config.augment} draws random numbers of its own: another run with this seed, or this one"
            " resumed, gives other numbers"
        )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    batches = open_batches(config, manifest)
    xla = config.xla
    if xla is None:
        xla = compilation_pays(
            strategy.num_replicas_in_sync,
            config.epochs * batches.steps_per_epoch,
            compilations=different_steps(config),
            precision=config.precision,
            deterministic=config.deterministic,
        )
    alike = {"compare-baseline": config.compare_baseline, "data": learnt_from(config, manifest)}
    workers.agree(versions() | deciding_options(config) | alike | {"classes": manifest.classes})
    found = find_checkpoint(place.path / "checkpoints", say) if place.resumed else None
    goes_on = workers.share([], found is not None)
    with strategy.scope():
        model = build_trainable(
            config,
            manifest.classes,
            batches.steps_per_epoch,
            first_weights=not goes_on,
            learnt=own_splits(config, manifest)[config.train_split],
            xla=xla,
        )
    place.begin()
    average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    variables += average.variables if average else []
    checkpoints = Checkpoints(place.path / "checkpoints", variables, keep=config.keep_checkpoints)
    restored = workers.share(variables, checkpoints.restore(found) if found else None)
    state = RunState.read(restored, f"{found}/{STATE}") if restored else RunState()
    write_history(place.path / "history.csv", state.history)
    return Training(
        config=config,
        place=place,
        classes=manifest.classes,
        stopping=stopping,
        workers=workers,
        strategy=strategy,
        batches=batches,
        model=model,
        average=average,
        checkpoints=checkpoints,
        state=state,
        log=TensorBoardLog(place.path / "tensorboard", config, manifest.classes),
        panel=batches.first_pictures(),
    )


def train_epoch(run: Training) -> tuple[dict[str, Any], Predictions | None]:
    """Train the rest of an epoch, and validate.

    Returns:
        The epoch's row of the history, and the predictions on the validation split, or None if the run has none.
    """
    one_look = run.state.epoch < one_look_epochs(run.config)
    frozen = run.state.epoch < run.config.freeze_backbone_epochs
    changes = (freeze_backbone(run.model, frozen), run.model.learn_one_look(one_look))
    if any(changes):
        run.first_step.comes_again()
    steps_left = run.batches.steps_per_epoch - run.state.steps
    started = time.monotonic()
    if steps_left:  # 0 if the run was stopped between the last step and the end of validation
        run_steps(run, steps_left)
    predictions = None
    with _epoch_saved(run):
        trained = time.monotonic()
        row = {"epoch": run.state.epoch + 1} | {mean.name: float(mean.result()) for mean in run.model.metrics}
        if one_look:
            row["local_loss"] = math.nan  # not computed
        row["learning_rate"] = float(run.model.optimizer.learning_rate)
        run.batches.clock.close_epoch(trained - started)
        row["images_per_second"] = steps_left * run.config.batch_size / (trained - started)
        if run.must_stop():  # a signal may have come after the last step checked for one
            run.stopping.leave()
        if run.batches.validation_files:
            with run.weights_in_use():
                predictions = predict_dataset(
                    run.model,
                    run.batches.to_evaluate(run.batches.validation_files),
                    images=run.batches.validation_examples if sys.stderr.isatty() else None,
                )
            metrics = evaluate_predictions(predictions)
            row |= {column: metrics[stream]["mAP"] for stream, column in VALIDATION_MAP.items()}
        row["seconds"] = time.monotonic() - started
    return row, predictions


def run_steps(run: Training, steps_left: int) -> None:
    """Train the last `steps_left` steps of an epoch. If a signal arrives, save after the current step and stop.

    Raises:
        NonFiniteLossError: training diverged; the error names the last good checkpoint.
    """
    config, done = run.config, run.state.steps
    bar = ProgressBar(run.batches.steps_per_epoch, config.batch_size, config.epochs, first_step=done)
    files = [file.path if isinstance(file, Part) else file for file in run.batches.train_files]
    watch = StallWatch(files, say=say, building=lambda: not run.first_step.ended)
    guard = StepGuard(run.save, config.checkpoint_minutes, run.must_stop, steps_done=done)
    callbacks: list[keras.callbacks.Callback] = [run.first_step, run.forecast]
    callbacks += [ResumedMeans(run.model)] if done else []
    callbacks += [run.average] if run.average else []
    with run.stopping.waiting(), contextlib.closing(bar), contextlib.closing(watch):
        try:
            run.model.fit(
                run.batches.of_epoch(run.strategy, run.state.epoch, done),
                initial_epoch=run.state.epoch,
                epochs=run.state.epoch + 1,
                # Without it, Keras asks for one batch too many, and counts a step for it although there is none.
                steps_per_epoch=steps_left,
                callbacks=StepCallbacks([*callbacks, bar, watch, guard], add_history=True, model=run.model),
                verbose=0,
                shuffle=False,
            )
        except StopRequestedError:
            run.stopping.leave()
        except NonFiniteLossError as error:
            last = run.checkpoints.latest() or "none yet"
            raise NonFiniteLossError(f"{error} The last good checkpoint: {last}.") from error


@contextlib.contextmanager
def _epoch_saved(run: Training) -> Iterator[None]:
    """Save the finished steps if a signal interrupts the block. After it, signals wait until the epoch is closed."""
    try:
        yield
        run.stopping.can_wait = True
    except (KeyboardInterrupt, Terminated):
        if run.average:
            run.average.give_way()
        run.save(run.batches.steps_per_epoch)
        raise


def close_epoch(run: Training, row: dict[str, Any], predictions: Predictions | None) -> None:
    """Write the results of an epoch: weights, row of the history, curves and a checkpoint."""
    folder = run.place.path
    run.place.check()
    with run.stopping.waiting():
        best = run.state.add(row)
        with run.writing, run.weights_in_use():
            if best:
                write_weights(run.model, folder / "checkpoints" / "best.weights.h5")
            write_weights(run.model, folder / "checkpoints" / "last.weights.h5")
            append_history(folder / "history.csv", row)
            run.log.write_epoch(row, run.model, run.panel, predictions)
        run.save(0)
        say(epoch_line(row, run.config.epochs, run.batches.clock.share))
    if run.must_stop():
        run.stopping.leave()


def write_result(run: Training) -> None:
    """Evaluate on the run's `eval_split` and write the metrics, which completes the run."""
    run.place.check()
    folder, split = run.place.path, run.config.eval_split
    test = run.batches.test
    if test is None:
        write_text(folder / METRICS, "{}\n")
        return
    say(f"evaluating on {split} ({test.examples} images)")
    with run.weights_in_use():
        predictions = predict_dataset(run.model, run.batches.to_evaluate(test.files), images=test.examples)
    metrics = evaluate_predictions(predictions)
    run.log.write_result(split, metrics, predictions)
    if run.config.top_n:
        panel = draw_examples(test.files, predictions, run.classes)
        write_bytes(folder / "regions.png", encode_png(panel))
    write_metrics(folder / METRICS, split, metrics)
