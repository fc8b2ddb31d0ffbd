"""Divide pictures into splits by their labels: stratified, with groups of pictures kept together."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from pipelines.readers.stratify import seeded_keys, stratified_split
from pipelines.samples import fold_name

FRACTION = 0.1  # of the pictures: the usual share of `validation`, and of `test`
MOST_FOLDS = 100


def divide(
    label_sets: Sequence[tuple[str, ...]],
    classes: Sequence[str],
    hashes: np.ndarray,
    groups: np.ndarray | None,
    shares: Sequence[float],
    seed: int,
) -> np.ndarray:
    """The split of each picture.

    Args:
        label_sets: the labels of each picture; equal ones may be one object.
        classes: all names.
        hashes: (pictures,) uint64, hashes of their ids.
        groups: (pictures,) numbers of the groups, or None where each picture stands for itself.
        shares: the share of each split.
        seed: another seed gives another division.

    Returns:
        (pictures,) uint8.
    """
    index = {name: place for place, name in enumerate(classes)}
    indices = {names: tuple(sorted({index[name] for name in names})) for names in set(label_sets)}
    labels = [indices[names] for names in label_sets]
    keys = seeded_keys(hashes, seed)
    if groups is None:
        return stratified_split(labels, keys, shares)
    return grouped_split(labels, groups, keys, shares)


def grouped_split(
    labels: Sequence[tuple[int, ...]], groups: np.ndarray, keys: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """Assign whole groups to splits: the largest first, each where it least disturbs what the splits should have.

    Disturbance is the chi-squared distance of a split's number of pictures, and of pictures of each class, from its
    share of them.

    Args:
        labels: the classes of each picture.
        groups: (pictures,) numbers from 0 on.
        keys: (pictures,) uint64, see `stratified_split`; the smallest key in a group is the group's.
        shares: the share of each split; they sum to 1.

    Returns:
        (pictures,) uint8, the split of each.
    """
    num_classes = max((label for of in labels for label in of), default=-1) + 1
    counts: list[Counter[int]] = [Counter() for _ in range(int(groups.max(initial=-1)) + 1)]
    for group, of in zip(groups.tolist(), labels, strict=True):
        counts[group].update(of)
        counts[group][num_classes] += 1  # the number of pictures, like one more class
    group_keys = np.full(len(counts), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(group_keys, groups, keys)
    sizes = np.bincount(groups, minlength=len(counts))
    totals = np.bincount([label for of in labels for label in of], minlength=num_classes + 1).astype(float)
    totals[num_classes] = len(labels)

    wanted = np.asarray(shares)[:, None] * totals  # (splits, classes + 1)
    have = np.zeros_like(wanted)
    split_of = np.zeros(len(counts), np.uint8)
    for group in np.lexsort((group_keys, -sizes)).tolist():
        kinds = np.fromiter(counts[group], np.int64)
        added = np.fromiter(counts[group].values(), float)
        want = wanted[:, kinds]
        disturbed = ((2 * (have[:, kinds] - want) * added + added**2) / want).sum(1)
        split = int(disturbed.argmin())
        split_of[group] = split
        have[split, kinds] += added
    return split_of[groups]


def shares_of(
    val_fraction: float | None, test_fraction: float | None, folds: int | None
) -> tuple[list[str], list[float]]:
    """The splits that a table is divided into, and the share of each.

    Args:
        val_fraction: share of `validation`; None: `FRACTION`, or none where there are folds.
        test_fraction: share of `test`, likewise.
        folds: number of equal folds that take the place of `train` and `validation`, or None.
    """
    if folds is not None and val_fraction is not None:
        raise ValueError(
            "`--val-fraction` does nothing with `--folds`, each of which is evaluated on in turn."
        )
    if folds is not None and not 2 <= folds <= MOST_FOLDS:
        raise ValueError(f"`folds` must lie in [2, {MOST_FOLDS}]. Received: {folds}")
    usual = FRACTION if folds is None else 0.0
    val_fraction = usual if val_fraction is None else val_fraction
    test_fraction = usual if test_fraction is None else test_fraction
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"`{name}` must lie in [0, 1). Received: {fraction}")
    if val_fraction + test_fraction >= 1:
        raise ValueError(f"The fractions {val_fraction} and {test_fraction} leave nothing to train on.")
    rest = 1 - val_fraction - test_fraction
    if folds is not None:
        shares = dict.fromkeys(map(fold_name, range(1, folds + 1)), rest / folds) | {"test": test_fraction}
    else:
        shares = {"train": rest, "validation": val_fraction, "test": test_fraction}
    kept = {split: share for split, share in shares.items() if share}
    return list(kept), list(kept.values())


def refuse_folds(source: Path | str, splits: Collection[str], folds: int | None) -> None:
    """Refuse to divide into folds what names its splits itself."""
    if folds is not None:
        raise ValueError(
            f"{source} names its splits ({', '.join(sorted(splits)[:6])}), so `--folds` has nothing to divide. Leave"
            " it out, or take the splits out of the table."
        )
