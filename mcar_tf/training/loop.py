"""The training of one run: a config and a prepared set in, a finished run folder out.

A run is a sequence of epochs, each of them one call of Keras' `fit` on that epoch's own dataset. All that carries
over from step to step lies in variables, and all that carries over from epoch to epoch in `RunState`, so a
checkpoint of both is the whole run.
"""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.columns import VALIDATION_MAP
from mcar_tf.evaluating.predicting import predict_dataset
from mcar_tf.evaluating.results import evaluate_predictions, to_json
from mcar_tf.reporting.drawing import encode_png
from mcar_tf.reporting.examples import draw_examples
from mcar_tf.runs.folder import (
    append_history,
    deciding_options,
    learnt_from,
    versions,
    write_history,
)
from mcar_tf.runs.splits import VALIDATION, find_split, split_names
from mcar_tf.training.callbacks import (
    MovingAverage,
    NonFiniteLossError,
    ProgressBar,
    ResumedMeans,
    StallWatch,
    StepGuard,
    StopRequestedError,
)
from mcar_tf.training.checkpoints import Checkpoints, write_weights
from mcar_tf.training.model import build_trainable, freeze_backbone
from mcar_tf.training.multi_worker import agree, as_on_the_chief, make_multi_worker_strategy, read_worker
from mcar_tf.training.signals import Stopping
from mcar_tf.training.tensorboard import TensorBoardLog
from pipelines.augment import UNSEEDED
from pipelines.cache import cache_resized
from pipelines.command import Terminated
from pipelines.files import write_bytes, write_text
from pipelines.input_pipeline import make_eval_dataset, make_train_dataset
from pipelines.manifest import Manifest, Part
from pipelines.words import percent


@dataclasses.dataclass
class RunState:
    """Where a run stands, beside its variables.

    Attributes:
        epoch: whole epochs done.
        steps: done of the current one.
        history: a row an epoch, as in `history.csv`.
        best: the row with the highest mAP on the validation split.
    """

    epoch: int = 0
    steps: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None


class Stopwatch:
    """The seconds inside its `with` blocks, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self.started


def train(config: FitConfig, folder: Path, manifest: Manifest, stopping: Stopping) -> None:
    """Bring a run from wherever it stands to its end: the last file written is `metrics.json`."""
    strategy = make_strategy(config)
    if config.augment in UNSEEDED:
        print(
            f"--augment {config.augment} draws random numbers of its own: another run with this seed, or this one"
            " resumed, gives other numbers",
            flush=True,
        )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    train_split = find_split(config, manifest, config.train_split)
    eval_split = find_split(config, manifest, config.eval_split)
    validates = VALIDATION in split_names(config, manifest)
    validation = find_split(config, manifest, VALIDATION) if validates else None
    train_files: Sequence[Path | Part] = train_split.files
    validation_files: Sequence[Path | Part] = validation.files if validation else []
    if config.cache_dir:
        train_files = cache_resized(train_files, config.image_size, config.cache_dir)
        validation_files = cache_resized(validation_files, config.image_size, config.cache_dir)
    num_classes = len(manifest.classes)
    data: dict[str, Any] = {
        "num_classes": num_classes,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
    }
    steps_per_epoch = train_split.examples // config.batch_size

    if config.strategy == "multi_worker":
        alike = {"compare-baseline": config.compare_baseline, "data": learnt_from(config, manifest)}
        agree(strategy, versions() | deciding_options(config) | alike | {"classes": manifest.classes})
    with strategy.scope():
        model = build_trainable(config, manifest.classes, steps_per_epoch)
    average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    variables += average.variables if average else []
    weights_in_use = average.in_place if average else contextlib.nullcontext
    say = functools.partial(print, flush=True)  # a log that is read while the run stands still
    checkpoints = Checkpoints(folder / "checkpoints", variables, keep=config.keep_checkpoints, warn=say)
    restored = checkpoints.restore_latest()
    if config.strategy == "multi_worker":
        restored = as_on_the_chief(strategy, variables, restored)
    state = RunState(**(restored or {}))
    write_history(folder / "history.csv", state.history)
    log = TensorBoardLog(folder / "tensorboard", config, manifest.classes)
    shown = make_eval_dataset(validation_files or train_files, **data | {"batch_size": 8})
    panel = next(iter(shown))["image"]

    writing = Stopwatch()

    def save(steps: int) -> None:
        with writing:
            checkpoints.save(state.epoch, steps, dataclasses.asdict(state) | {"steps": steps})

    bar = ProgressBar(steps_per_epoch, config.batch_size, config.epochs)
    watch = StallWatch([file.path if isinstance(file, Part) else file for file in train_files], say=say)
    # Of several workers the chief, which saves, leaves first: who left before it would break its step.
    leads = config.strategy != "multi_worker" or read_worker().index == 0

    def must_stop() -> bool:
        return leads and stopping.requested

    guard = StepGuard(save, config.checkpoint_minutes, must_stop)

    began, epochs_before = time.monotonic(), state.epoch
    while state.epoch < config.epochs and not out_of_patience(config, state):
        freeze_backbone(model, state.epoch < config.freeze_backbone_epochs)
        steps_left = steps_per_epoch - state.steps
        started = time.monotonic()
        if steps_left:  # none, if the run was stopped between the last step and the end of validation
            shares = functools.partial(make_share, config, train_files, num_classes, state)
            dataset = strategy.distribute_datasets_from_function(shares)
            bar.first_step = guard.steps_done = state.steps
            resumed = [ResumedMeans(model)] if state.steps else []
            averaging = [average] if average else []
            stopping.can_wait = True
            try:
                model.fit(
                    dataset,
                    initial_epoch=state.epoch,
                    epochs=state.epoch + 1,
                    # Without it Keras asks for one batch too many, and the step that gets none still counts.
                    steps_per_epoch=steps_left,
                    callbacks=[*resumed, *averaging, bar, watch, guard],
                    verbose=0,
                    shuffle=False,
                )
            except StopRequestedError:
                stopping.leave()
            except NonFiniteLossError as error:
                raise NonFiniteLossError(
                    f"{error} The last good checkpoint: {checkpoints.latest() or 'none yet'}."
                ) from error
            finally:
                watch.close()
                bar.close()
                stopping.can_wait = False
        try:
            trained = time.monotonic()
            row = {"epoch": state.epoch + 1} | {mean.name: float(mean.result()) for mean in model.metrics}
            row["learning_rate"] = float(model.optimizer.learning_rate)
            row["images_per_second"] = steps_left * config.batch_size / (trained - started)
            if must_stop():  # since the last step asked
                stopping.leave()
            if validation:
                with weights_in_use():
                    predictions = predict_dataset(model, _whole(make_eval_dataset(validation_files, **data)))
                metrics = evaluate_predictions(predictions)
                row |= {column: metrics[stream]["mAP"] for stream, column in VALIDATION_MAP.items()}
            row["seconds"] = time.monotonic() - started
            stopping.can_wait = True  # until all of the epoch is written, which is soon
        except (KeyboardInterrupt, Terminated):
            if average:
                average.give_way()
            save(steps_per_epoch)
            raise

        state.epoch, state.steps = state.epoch + 1, 0
        state.history.append(row)
        with writing, weights_in_use():
            if validation and (state.best is None or row["val_mAP_fused"] > state.best["val_mAP_fused"]):
                state.best = row
                write_weights(model, folder / "checkpoints" / "best.weights.h5")
            write_weights(model, folder / "checkpoints" / "last.weights.h5")
            append_history(folder / "history.csv", row)
            log.write_epoch(row, model, panel, predictions if validation else None)
        save(0)
        print(epoch_line(row, config.epochs), flush=True)
        stopping.can_wait = False
        if must_stop():
            stopping.leave()

    if state.epoch > epochs_before:
        share = writing.seconds / (time.monotonic() - began)
        print(
            f"checkpoints and logs took {writing.seconds:.1f} s, {share:.1%} of the time of training",
            flush=True,
        )

    print(f"evaluating on {config.eval_split} ({eval_split.examples} images)", flush=True)
    dataset = _whole(make_eval_dataset(eval_split.files, **data, difficult="ignore"))
    with weights_in_use():
        predictions = predict_dataset(model, dataset, images=eval_split.examples)
    metrics = evaluate_predictions(predictions)
    log.write_result(config.eval_split, metrics, predictions)
    if config.top_n:
        panel = draw_examples(eval_split.files, predictions, manifest.classes)
        write_bytes(folder / "regions.png", encode_png(panel))
    write_text(folder / "metrics.json", json.dumps({config.eval_split: to_json(metrics)}, indent=1) + "\n")


def make_strategy(config: FitConfig) -> tf.distribute.Strategy:
    """The strategy of a config: one device costs nothing."""
    if config.strategy == "multi_worker":
        strategy = _multi_worker()
        check_replicas(config, strategy.num_replicas_in_sync)
        return strategy
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    mirrored = config.strategy == "mirrored" or (
        config.strategy == "auto" and kind == "GPU" and len(devices) > 1
    )
    for name, asked in (("strategy mirrored", mirrored), ("sync-batch-norm", config.sync_batch_norm)):
        if asked and not (mirrored and len(devices) > 1):
            raise ValueError(f"--{name} needs several devices to train on. There is {len(devices)} {kind}.")
    if not mirrored:
        return tf.distribute.get_strategy()
    check_replicas(config, len(devices))
    return _mirrored(tuple(devices))


def check_replicas(config: FitConfig, replicas: int) -> None:
    """Refuse what does not work on several devices."""
    if replicas > 1 and config.accumulate_steps > 1:  # Keras' is a condition around a sum over replicas
        raise ValueError(
            f"--accumulate-steps works on one device, not on {replicas}: raise --batch-size, or give"
            " --strategy one_device."
        )
    if config.batch_size % replicas:
        raise ValueError(
            f"`batch-size` must be a multiple of {replicas}, the devices. Received: {config.batch_size}"
        )


@functools.cache  # a second one in a process (the baseline's) would find the first one's collective operations
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    return make_multi_worker_strategy()


def make_share(
    config: FitConfig,
    files: Sequence[Path | Part],
    num_classes: int,
    state: RunState,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """This worker's share of what is left of an epoch, in batches for one replica; all replicas' make one step."""
    workers = context.num_input_pipelines
    return make_train_dataset(
        files,
        num_classes=num_classes,
        image_size=config.image_size,
        batch_size=context.get_per_replica_batch_size(config.batch_size),
        seed=config.seed,
        epoch=state.epoch,
        skip_batches=state.steps * (context.num_replicas_in_sync // workers),
        augment=config.augment,
        difficult=config.difficult,
        shard=(context.input_pipeline_id, workers),
        shuffle_megabytes=config.shuffle_megabytes,
    ).map(_without_id)


def out_of_patience(config: FitConfig, state: RunState) -> bool:
    """Whether the last epochs, as many as `early_stopping_epochs`, brought nothing better."""
    best_epoch = state.best["epoch"] if state.best else 0
    return 0 < config.early_stopping_epochs <= state.epoch - best_epoch


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One line about an epoch, for people."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['loss']:.4f}"]
    if "global_loss" in row:
        parts[-1] += f" (global {row['global_loss']:.4f}, local {row['local_loss']:.4f})"
    if "val_mAP_fused" in row:
        parts.append(f"val mAP {percent(row['val_mAP_fused'])}")
        if "global_loss" in row:
            parts[-1] += f" (global {percent(row['val_mAP_global'])}, local {percent(row['val_mAP_local'])})"
    parts.append(f"{row['images_per_second']:.0f} images/s")
    left = round((epochs - row["epoch"]) * row["seconds"])
    parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left" if left else "done")
    return "  ".join(parts)


def _whole(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same for every worker: each evaluates all images, and all come to the same result."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _without_id(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: value for name, value in batch.items() if name != "id"}
