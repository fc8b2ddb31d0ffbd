"""A run's config in, the manifest of its prepared set out, checked for what the run asks of it. Loads no TensorFlow
unless it has to build the set.
"""

from mcar_tf.config import FitConfig
from mcar_tf.runs.splits import NO_SPLIT, VALIDATION, find_split, has_labels, holds_out, overlap, split_names
from pipelines.command import load_tensorflow
from pipelines.manifest import MANIFEST, Manifest, load_manifest
from pipelines.words import nearest


def prepare_data(config: FitConfig) -> Manifest:
    """The prepared set's manifest; the set is built first where it is absent and its source is known."""
    from pipelines.building.sets import build_set
    from pipelines.readers.registry import READERS, read_raw_set

    absent = not (config.data_dir / config.dataset / MANIFEST).is_file()
    if absent and config.dataset not in READERS:
        raise ValueError(
            f"`--dataset` must be one of {', '.join(READERS)}, or a set prepared in {config.data_dir}."
            f"{nearest(config.dataset, READERS)} Received: {config.dataset!r}"
        )
    if absent and (config.dataset == "digits" or config.source is not None):
        print(f"preparing {config.dataset} in {config.data_dir / config.dataset}", flush=True)
        load_tensorflow()
        return build_set(read_raw_set(config.dataset, config.source), config.data_dir)
    return load_manifest(config.data_dir, config.dataset)


def check_against_data(config: FitConfig, manifest: Manifest) -> None:
    """Refuse splits that the set has not or that overlap, more regions than classes, too large a batch."""
    if config.val_fraction and not holds_out(config, manifest):
        raise ValueError(f"--val-fraction does nothing: {config.dataset} has a validation split of its own.")
    train_split = find_split(config, manifest, config.train_split, option="train_split")
    check_eval_split(config, manifest)
    if config.early_stopping_epochs and VALIDATION not in split_names(config, manifest):
        raise ValueError(
            f"--early-stopping-epochs needs a validation split, which {config.dataset} has not. --val-fraction makes"
            " one."
        )
    if config.top_n > len(manifest.classes):
        raise ValueError(
            f"`--top-n` must lie in [0, {len(manifest.classes)}], the number of classes. Received: {config.top_n}"
        )
    if train_split.examples < config.batch_size:
        raise ValueError(
            f"`--batch-size` must be at most {train_split.examples}, the training images."
            f" Received: {config.batch_size}"
        )


def check_eval_split(config: FitConfig, manifest: Manifest) -> None:
    """Refuse a split to measure the run on that it learns from, or whose labels nobody knows.

    Raises:
        ValueError: what else to choose.
    """
    if config.eval_split == NO_SPLIT:
        return
    split = find_split(config, manifest, config.eval_split, option="eval_split")
    if overlap(config.train_split, config.eval_split):
        raise ValueError(
            f"--eval-split {config.eval_split} has pictures of --train-split {config.train_split}: measured on what"
            f" it learnt from, the run would be flattered. {config.dataset} has"
            f" {', '.join(split_names(config, manifest))}; --eval-split {NO_SPLIT} measures nothing."
        )
    if not has_labels(split):
        raise ValueError(
            f"The split {config.eval_split} of {config.dataset} has no labels, so nothing can be measured on it."
            f" {config.dataset} has {', '.join(split_names(config, manifest))}: choose --train-split and --eval-split"
            f" of these, or --eval-split {NO_SPLIT} to train without a result of its own."
        )
