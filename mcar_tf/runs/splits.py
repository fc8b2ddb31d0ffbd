"""Finds the splits of a prepared set as a run uses them, including one that it holds out. Loads no TensorFlow."""

from collections.abc import Sequence

from mcar_tf.config import FitConfig
from pipelines.manifest import Manifest, Portion, Split, hold_out, join_splits
from pipelines.samples import fold_name, is_fold
from pipelines.words import spell

VALIDATION = "validation"
# Splits made of other splits: VOC's `train` consists of the two lists of its development kit.
PARTS = {"train": ("devkit_train", "devkit_val")}


def split_names(config: FitConfig, manifest: Manifest) -> list[str]:
    """The splits that a run has: those of the set, and `validation` if the run holds one out."""
    return [*own_splits(config, manifest), *([VALIDATION] if holds_out(config, manifest) else [])]


def find_split(config: FitConfig, manifest: Manifest, name: str, option: str = "split") -> Split | Portion:
    """A split as the run saw it: if it held out a validation split, its training split is the rest.

    Args:
        config: the run's options.
        manifest: the prepared set's manifest.
        name: the name of the split.
        option: the option that gave the name, for the error.

    Raises:
        ValueError: the run has no split of that name.
    """
    names = split_names(config, manifest)
    if name not in names:
        folds = manifest.folds if config.fold is None else []
        advice = f" Its folds are for --fold, {_numbers(folds)}." if folds else ""
        raise ValueError(
            f"`--{spell(option)}` must be one of {', '.join(names)}, the splits of {manifest.name}."
            f" Received: {name!r}.{advice}"
        )
    splits = own_splits(config, manifest)
    if holds_out(config, manifest) and name in (config.train_split, VALIDATION):
        rest, held = hold_out(splits[config.train_split], config.val_fraction, config.seed)
        return held if name == VALIDATION else rest
    return splits[name]


def own_splits(config: FitConfig, manifest: Manifest) -> dict[str, Split]:
    """The set's splits, before the run holds any pictures out. A run of a fold trains on all the others as one.

    Raises:
        ValueError: the set has no such fold.
    """
    if config.fold is None:
        return manifest.splits
    folds, own = manifest.folds, fold_name(config.fold)
    if own not in folds:
        has = f"has the folds {_numbers(folds)}" if folds else "was not built with --folds"
        raise ValueError(
            f"`--fold` must be a fold of the set, and {manifest.name} {has}. Received: {config.fold}"
        )
    train = join_splits([manifest.splits[name] for name in folds if name != own])
    others = {name: split for name, split in manifest.splits.items() if name not in folds}
    return {config.train_split: train, own: manifest.splits[own], **others}


def holds_out(config: FitConfig, manifest: Manifest) -> bool:
    """Whether the run takes its validation split from the training split, which it does only if the set has none."""
    return config.val_fraction > 0 and VALIDATION not in manifest.splits


def overlap(one: str, other: str) -> bool:
    """Whether two splits of a set share pictures: they are the same, or one is a part of the other."""
    return one == other or other in PARTS.get(one, ()) or one in PARTS.get(other, ())


def trains_on(config: FitConfig, name: str) -> bool:
    """Whether a run learns from pictures of a split of its set. A run of a fold learns from all other folds."""
    if config.fold is None:
        return overlap(name, config.train_split)
    return name == config.train_split or (is_fold(name) and name != fold_name(config.fold))


def share_training(one: FitConfig, other: FitConfig) -> bool:
    """Whether two runs on one set learn from common pictures, as far as their options say it.

    Two runs of folds are taken to: only where there are just two folds, they do not.
    """
    if one.fold is not None and other.fold is not None:
        return True
    return trains_on(other, one.train_split) if one.fold is None else trains_on(one, other.train_split)


def hold_out_alike(one: FitConfig, other: FitConfig) -> bool:
    """Whether two runs on one set hold out the same pictures."""
    names = ("train_split", "fold", "val_fraction", "seed")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def has_labels(split: Split | Portion) -> bool:
    """Whether the labels of a split are known; those of VOC 2012's test split are not."""
    # A `Portion` is a part of a split that the run trains on, so it has labels.
    return isinstance(split, Portion) or any(unknown < split.examples for unknown in split.unknown)


def _numbers(folds: Sequence[str]) -> str:
    first, last = (name.removeprefix("fold") for name in (folds[0], folds[-1]))
    return f"{first} to {last}"
