"""Divide multi-label pictures into splits by iterative stratification."""

import itertools
from collections.abc import Sequence

import numpy as np

INDIVISIBLE_SHARE = 0.5  # of the largest split, which classes that are too rare to be divided may fill


def stratified_split(
    labels: Sequence[tuple[int, ...]], keys: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, 2011).

    Each split gets its share of the positives of each class, as nearly as whole pictures allow: the class with the
    fewest pictures left is divided first, each of its pictures going to the split that still lacks most of that
    class. A random division would leave rare classes out of the small splits.

    If a class has so few pictures that all of them go to the largest split, such as 3 at 80 : 10 : 10, it is trained
    on. But if many pictures have such rare tags, they would fill that split and starve the others. So at most half of
    that split is chosen in this way; beyond that, such a class decides nothing.

    Args:
        labels: the classes of each picture.
        keys: (pictures,) uint64, from `seeded_keys`. They decide the order of the pictures and every tie, so that
            the result depends on ids and seed and not on the order of the rows.
        shares: the share of each split; they sum to 1.

    Returns:
        (pictures,) uint8, the split of each.
    """
    order = np.argsort(keys, kind="stable")
    tie_breaks = keys.tolist()
    lengths = np.fromiter(map(len, labels), np.int64, len(labels))
    flat = np.fromiter(itertools.chain.from_iterable(labels), np.int64, int(lengths.sum()))
    num_classes = int(flat.max(initial=-1)) + 1
    left = np.bincount(flat, minlength=num_classes)  # pictures not yet in a split, per class
    pictures_of = _pictures_of_each_class(flat, lengths, order, left)

    lacking = [[float(share * count) for count in left] for share in shares]  # (splits, classes)
    lacking_any = [share * len(labels) for share in shares]
    largest, second = sorted(shares, reverse=True)[:2] if len(shares) > 1 else (shares[0], 0.0)
    # All c pictures of a class go to the largest split if, with c - 1 of them, it still lacks more than the next.
    is_indivisible = left * (1 - largest + second) < 1
    # How many more pictures such classes may place.
    indivisible_left = INDIVISIBLE_SHARE * largest * len(labels)
    split_of = np.full(len(labels), 255, np.uint8)

    def place(picture: int, wanted: Sequence[float]) -> None:
        split = max(
            range(len(shares)),
            key=lambda s: (wanted[s], lacking_any[s], tie_breaks[picture] >> (8 * s % 57) & 0xFF),
        )
        split_of[picture] = split
        lacking_any[split] -= 1
        for label in labels[picture]:
            lacking[split][label] -= 1
            left[label] -= 1

    while (left > 0).any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        if is_indivisible[rarest] and indivisible_left <= 0:
            left[rarest] = 0
            continue
        for picture in pictures_of[rarest].tolist():
            if split_of[picture] == 255:
                place(picture, [lacks[rarest] for lacks in lacking])
                indivisible_left -= is_indivisible[rarest]
    for picture in order[split_of[order] == 255].tolist():  # pictures without any class that decides
        place(picture, lacking_any)
    return split_of


def seeded_keys(hashes: np.ndarray, seed: int) -> np.ndarray:
    """(pictures,) uint64 hashes of ids -> as many keys, whose order differs with every seed (splitmix64)."""
    state = np.random.default_rng(seed).integers(2**64, dtype=np.uint64)
    keys = hashes ^ state
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _pictures_of_each_class(
    flat: np.ndarray, lengths: np.ndarray, order: np.ndarray, counts: np.ndarray
) -> list[np.ndarray]:
    """The pictures of each class, in the order given."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    picture = np.repeat(np.arange(len(lengths)), lengths)
    by_class = np.lexsort((rank[picture], flat))
    return np.split(picture[by_class], np.cumsum(counts)[:-1]) if len(counts) else []
