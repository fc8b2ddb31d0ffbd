"""Train: `python -m mcar_tf.fit --dataset coco`. A prepared set in, a run folder out."""

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.config import FitConfig, parse_fit_config
from mcar_tf.evaluating import columns
from mcar_tf.runs.folder import command_on, open_run_folder
from mcar_tf.runs.splits import VALIDATION, find_split, holds_out, split_names
from mcar_tf.training.multi_worker import losing_workers, own_folder, read_worker
from mcar_tf.training.signals import Stopping, stop_between_steps
from pipelines.command import load_tensorflow, run_command
from pipelines.manifest import MANIFEST, Manifest, load_manifest


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_fit_config(argv)
    manifest = prepare_data(config)
    check_against_data(config, manifest)
    with stop_between_steps() as stopping, worker_folder(config) as folder:
        metrics, seconds = fit(config, folder, manifest, stopping)
        name = f"MCAR, {config.top_n} regions" if config.top_n else f"plain {config.backbone}"
        rows = stream_rows(name, config, metrics)
        times = [f"{name.split(',')[0]} {seconds:.0f} s"]
        if config.compare_baseline:
            print(f"\nbaseline: the plain {config.backbone} by the same recipe")
            plain = dataclasses.replace(config, top_n=0)
            metrics, seconds = fit(plain, folder / "baseline", manifest, stopping)
            rows = stream_rows("baseline", plain, metrics) + rows
            times.append(f"baseline {seconds:.0f} s")
    if folder == config.run_dir:  # not on a worker that is not the chief
        print_closing(config, folder, rows, times)


def fit(
    config: FitConfig, folder: Path, manifest: Manifest, stopping: Stopping
) -> tuple[dict[str, Any], float]:
    """Bring the run in a folder to its end.

    Returns:
        Its metrics on `config.eval_split`, and the seconds that this process trained and evaluated.
    """
    several = config.strategy == "multi_worker"
    started = time.monotonic()
    with open_run_folder(config, folder, manifest):
        # Of several workers each comes along, for the others may not be as far.
        if several or not (folder / "metrics.json").is_file():
            load_tensorflow()
            from mcar_tf.training.loop import train

            started = time.monotonic()
            with losing_workers(stopping) if several else contextlib.nullcontext():
                train(config, folder, manifest, stopping)
    return json.loads((folder / "metrics.json").read_text())[config.eval_split], time.monotonic() - started


@contextlib.contextmanager
def worker_folder(config: FitConfig) -> Iterator[Path]:
    """The run folder; on a worker that is not the chief, one for nothing."""
    if config.strategy != "multi_worker":
        yield config.run_dir
        return
    worker = read_worker()
    with own_folder(worker, config.run_dir) as folder:
        yield folder


def prepare_data(config: FitConfig) -> Manifest:
    """The prepared set's manifest; the set is built first where it is absent and its source is known."""
    from pipelines.building.sets import build_set
    from pipelines.readers.registry import READERS, read_raw_set
    from pipelines.words import nearest

    absent = not (config.data_dir / config.dataset / MANIFEST).is_file()
    if absent and config.dataset not in READERS:
        raise ValueError(
            f"`dataset` must be one of {', '.join(READERS)}, or a set prepared in {config.data_dir}."
            f"{nearest(config.dataset, READERS)} Received: {config.dataset!r}"
        )
    if absent and (config.dataset == "digits" or config.source is not None):
        print(f"preparing {config.dataset} in {config.data_dir / config.dataset}", flush=True)
        load_tensorflow()
        return build_set(read_raw_set(config.dataset, config.source), config.data_dir)
    return load_manifest(config.data_dir, config.dataset)


def check_against_data(config: FitConfig, manifest: Manifest) -> None:
    """Refuse splits that the set has not, more regions than classes, a batch larger than the split."""
    if config.val_fraction and not holds_out(config, manifest):
        raise ValueError(f"--val-fraction does nothing: {config.dataset} has a validation split of its own.")
    train_split = find_split(config, manifest, config.train_split)
    find_split(config, manifest, config.eval_split)
    if config.early_stopping_epochs and VALIDATION not in split_names(config, manifest):
        raise ValueError(
            f"--early-stopping-epochs needs a validation split, which {config.dataset} has not. --val-fraction makes"
            " one."
        )
    if config.top_n > len(manifest.classes):
        raise ValueError(
            f"`top-n` must lie in [0, {len(manifest.classes)}], the number of classes. Received: {config.top_n}"
        )
    if train_split.examples < config.batch_size:
        raise ValueError(
            f"`batch-size` must be at most {train_split.examples}, the training images."
            f" Received: {config.batch_size}"
        )


def stream_rows(name: str, config: FitConfig, metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Rows of the closing table: one for the plain backbone, one a stream for MCAR."""
    if config.top_n == 0:
        return [(name, metrics["global"])]
    return [(f"{name}: {title}", metrics[stream]) for stream, title in columns.STREAM_TITLES.items()]


def print_closing(
    config: FitConfig, folder: Path, rows: list[tuple[str, dict[str, Any]]], times: list[str]
) -> None:
    """The result, where everything lies, and what to do next."""
    title = f"{config.dataset}, {config.eval_split}, in %"
    width = max(len(name) for name in [title, *(name for name, _ in rows)])
    shown = columns.measures(columns.Detail.SHORT)
    print(f"\n{title:{width}}" + "".join(f"{head:>8}" for head in columns.titles(shown)))
    for name, metrics in rows:
        print(f"{name:{width}}" + "".join(f"{cell:>8}" for cell in columns.cells(shown, metrics)))
    if rows[0][1]["mAP"] is None:
        print(
            f"No picture of {config.eval_split} is known to show any class, so nothing can be measured on it."
        )
    print(f"trained and evaluated in: {', '.join(times)}")
    if config.top_n:
        print(f"where it looked in the first images of {config.eval_split}: {folder / 'regions.png'}")
    print(f"\nThe run lies in {folder}: history.csv, metrics.json, checkpoints, TensorBoard logs. What next:")
    for command, what in (
        (f"{command_on(folder, 'predict')} --images IMAGES --draw", "pictures of what it sees"),
        (command_on(folder, "evaluate"), "every metric, other sizes and regions"),
        (command_on(folder, "export"), "a SavedModel and a TFLite file"),
        (f"tensorboard --logdir {shlex.quote(str(folder))}", "curves and regions by epoch"),
    ):
        print(f"  {command}\n      {what}")


if __name__ == "__main__":
    run_command(main)
