"""Finds or builds the prepared set that a run trains on, and checks that it fits the run's options.

Loads TensorFlow only if the set has to be built.
"""

import dataclasses

import numpy as np

from mcar_tf.config import FitConfig
from mcar_tf.option_rules import NO_SPLIT
from mcar_tf.runs.folder import learnt_before
from mcar_tf.runs.splits import (
    VALIDATION,
    find_split,
    has_labels,
    holds_out,
    own_splits,
    split_names,
    trains_on,
)
from mcar_tf.training.recipes import recipe_defaults
from pipelines.command import load_tensorflow
from pipelines.manifest import MANIFEST, Manifest, Split, load_manifest
from pipelines.words import counted, listed, nearest, printable

RAREST = 5  # how many of the rarest classes are named
FEW = 20  # a class with fewer pictures than this is learnt badly


def prepare_data(config: FitConfig) -> Manifest:
    """The prepared set's manifest. The set is built first if it is absent and its source is known."""
    from pipelines.building.sets import build_set
    from pipelines.readers.registry import READERS, build_command, read_raw_set

    absent = not (config.data_dir / config.dataset / MANIFEST).is_file()
    if absent and config.dataset not in READERS:
        prepared = sorted(file.parent.name for file in config.data_dir.glob(f"*/{MANIFEST}"))
        raise ValueError(
            f"`--dataset` must be a set prepared in {config.data_dir} ({listed(prepared) or 'none yet'}) or one of"
            f" {', '.join(READERS)}. Received: {config.dataset!r}.{nearest(config.dataset, [*prepared, *READERS])}"
            f" To prepare one of your own: {build_command(config.dataset, config.data_dir)}"
        )
    if absent and (config.dataset == "digits" or config.source is not None):
        print(f"preparing {config.dataset} in {config.data_dir / config.dataset}", flush=True)
        load_tensorflow()
        return build_set(read_raw_set(config.dataset, config.source), config.data_dir)
    return load_manifest(config.data_dir, config.dataset)


def limit_regions(config: FitConfig, manifest: Manifest) -> FitConfig:
    """Reduce the default number of regions to the number of classes if the set has fewer classes than that."""
    usual = recipe_defaults(vars(config)).get("top_n", FitConfig().top_n)
    classes = len(manifest.classes)
    if config.top_n != usual or classes >= usual:
        return config
    print(
        f"top-n {classes}, not {usual}: {config.dataset} has {classes} class{'es' * (classes > 1)}, and each points"
        " at one region"
    )
    return dataclasses.replace(config, top_n=classes)


def check_against_data(config: FitConfig, manifest: Manifest) -> None:
    """Refuse splits that are missing or overlap, more regions than classes, and too large a batch."""
    if config.val_fraction and not holds_out(config, manifest):
        raise ValueError(f"--val-fraction does nothing: {config.dataset} has a validation split of its own.")
    train_split = find_split(config, manifest, config.train_split, option="train_split")
    check_eval_split(config, manifest)
    check_validation_split(config, manifest)
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
    """Refuse to measure the run on a split that it learns from or that has no labels.

    Raises:
        ValueError: the split can't be used; the error says which splits can.
    """
    if config.eval_split == NO_SPLIT:
        return
    split = find_split(config, manifest, config.eval_split, option="eval_split")
    if trains_on(config, config.eval_split):
        raise ValueError(
            f"--eval-split {config.eval_split} has pictures of --train-split {config.train_split}: measured on what"
            f" it learnt from, the run would be flattered. {config.dataset} has"
            f" {', '.join(split_names(config, manifest))}; --eval-split {NO_SPLIT} measures nothing."
        )
    if source := learnt_before(config, config.eval_split):
        raise ValueError(
            f"--init-from starts from what {source} learnt, pictures of --eval-split {config.eval_split} among it:"
            f" measured on these, the run would be flattered. --eval-split {NO_SPLIT} measures nothing."
        )
    if not has_labels(split):
        raise ValueError(
            f"The split {config.eval_split} of {config.dataset} has no labels, so nothing can be measured on it."
            f" {config.dataset} has {', '.join(split_names(config, manifest))}: choose --train-split and --eval-split"
            f" of these, or --eval-split {NO_SPLIT} to train without a result of its own."
        )


def check_validation_split(config: FitConfig, manifest: Manifest) -> None:
    """Refuse to choose the best epoch on pictures that the run learns from, or that are like those it learns from.

    Raises:
        ValueError: the error says what to do.
    """
    if VALIDATION not in split_names(config, manifest):
        return
    held_out = holds_out(config, manifest)
    if held_out and manifest.grouped_by:
        raise ValueError(
            f"--val-fraction knows nothing of groups, and {config.dataset} was divided by {manifest.grouped_by}:"
            " pictures of one group would be learnt from and validated on. Build the set with a validation split, or"
            " leave --val-fraction out."
        )
    if source := learnt_before(config, VALIDATION):
        advice = (
            "Hold out what that run held out (its --val-fraction and --seed), or leave --val-fraction out."
            if held_out
            else "Start from a run that never saw them, or leave --init-from out."
        )
        raise ValueError(
            f"--init-from starts from what {source} learnt, pictures of the validation split among it: the best epoch"
            f" would be chosen by what is known already. {advice}"
        )


def describe_data(config: FitConfig, manifest: Manifest) -> list[str]:
    """Lines about what a run will learn from: pictures, classes, the rarest classes, and the validation split."""
    used = dict.fromkeys((config.train_split, VALIDATION, config.eval_split))
    shown = [name for name in used if name in split_names(config, manifest)]
    pictures = [f"{name} {find_split(config, manifest, name).examples:,}" for name in shown]
    learnt = own_splits(config, manifest)[config.train_split]
    present, _ = count_known(config, learnt)
    labels = present.sum() / learnt.examples
    lines = [
        f"{manifest.name}: {counted(len(manifest.classes), 'class')}; pictures: {', '.join(pictures)};"
        f" {labels:.1f} labels a picture"
    ]
    order = np.argsort(present, kind="stable")[:RAREST].tolist()
    rarest = ", ".join(f"{printable(manifest.classes[label])[:40]} {present[label]:,}" for label in order)
    lines.append(f"rarest in {config.train_split}: {rarest}")
    few = int((present < FEW).sum())
    if few and config.class_weights == "none":
        lines.append(
            f"{few:,} of the classes {'has' if few == 1 else 'have'} fewer than {FEW} pictures to learn from: more"
            " pictures help most; --class-weights auto names rare classes more often, for less mAP (docs/worth.md)"
        )
    if VALIDATION not in shown:
        lines.append(
            "no validation split: the last weights are the result, and no pictures are left to calibrate thresholds"
            " on; --val-fraction 0.1 holds some out"
        )
    else:
        lines.append("validation: the weights of the best epoch are kept beside the last")
    return lines


def count_known(config: FitConfig, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """How many pictures of a split show each class and how many do not, as the run's loss sees them: (C,) each."""
    present, difficult, unknown = (np.array(x) for x in (split.present, split.difficult, split.unknown))
    absent = split.examples - present - unknown
    if config.difficult == "positive":
        return present, absent
    return present - difficult, absent + (difficult if config.difficult == "negative" else 0)
