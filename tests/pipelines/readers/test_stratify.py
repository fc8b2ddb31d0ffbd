import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.readers.stratify import seeded_keys, stratified_split

SHARES = [0.8, 0.1, 0.1]


def keys(count, seed=0):
    return seeded_keys(np.arange(count, dtype=np.uint64), seed)


def skewed_labels(pictures=3000, classes=40):
    """Label sets as real ones are: one to six classes a picture, the rarest a hundredth as frequent as the first."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, classes + 1)
    return [
        tuple(
            sorted(rng.choice(classes, size=rng.integers(1, 7), replace=False, p=frequency / frequency.sum()))
        )
        for _ in range(pictures)
    ]


def positives(labels, split_of):
    """(classes, splits) pictures of each class in each split."""
    counts = np.zeros((max(map(max, labels)) + 1, len(SHARES)), int)
    for names, split in zip(labels, split_of, strict=True):
        for label in names:
            counts[label, split] += 1
    return counts


def test_one_class_is_divided_by_the_shares():
    split_of = stratified_split([(0,)] * 10, keys(10), SHARES)
    assert np.bincount(split_of).tolist() == [8, 1, 1]


def test_pictures_without_a_class_are_divided_by_the_shares():
    split_of = stratified_split([()] * 20, keys(20), SHARES)
    assert np.bincount(split_of).tolist() == [16, 2, 2]


def test_a_class_of_one_picture_is_trained_on():
    split_of = stratified_split([(0,), (0, 1), (0,), (0,), (0,)], keys(5), SHARES)
    assert split_of[1] == 0


def test_each_class_gets_its_share_in_each_split():
    labels = skewed_labels()
    at_random = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [2400, 300, 300]))
    errors = {}
    for name, split_of in (
        ("stratified", stratified_split(labels, keys(3000), SHARES)),
        ("random", at_random),
    ):
        counts = positives(labels, split_of)
        wanted = counts.sum(1, keepdims=True) * np.array(SHARES)
        errors[name] = np.abs(counts - wanted) / wanted
    assert counts.sum(1).min() < 70  # there are rare classes: a small split wants seven pictures of them
    # At random, some small split has twice or nothing of what it should have of some class.
    assert errors["random"].max() > 1
    assert errors["stratified"].max() < 0.4
    assert errors["stratified"].mean() < errors["random"].mean() / 5


def test_splits_have_nearly_the_sizes_asked_for():
    labels = skewed_labels()
    sizes = np.bincount(stratified_split(labels, keys(len(labels)), SHARES))
    assert sizes == pytest.approx([2400, 300, 300], abs=15)


def test_division_does_not_depend_on_the_order_of_rows():
    labels, hashes = skewed_labels(), keys(3000)
    split_of = stratified_split(labels, hashes, SHARES)
    order = np.random.default_rng(1).permutation(3000)
    shuffled = stratified_split([labels[row] for row in order], hashes[order], SHARES)
    assert (shuffled == split_of[order]).all()


def test_another_seed_gives_another_division():
    labels = skewed_labels()
    one, other = (stratified_split(labels, keys(3000, seed), SHARES) for seed in (0, 1))
    assert 0.1 < (one != other).mean() < 0.5  # 0.8² + 0.1² + 0.1² = 0.66 would agree by chance


@pytest.mark.parametrize("own", [1, 2, 3])
def test_tags_of_their_own_starve_no_split(own):
    """2,000 pictures, nearly each with a tag that `own` pictures share, such as a photographer or a day."""
    rng = np.random.default_rng(0)
    labels = [
        tuple(sorted({*rng.choice(5, rng.integers(1, 4), replace=False).tolist(), 10 + i // own}))
        for i in range(2000)
    ]
    split_of = stratified_split(labels, keys(2000), SHARES)
    assert np.bincount(split_of) == pytest.approx([1600, 200, 200], abs=15)
    counts = positives(labels, split_of)[:5]  # the classes that mean something, of some 800 pictures each
    wanted = counts.sum(1, keepdims=True) * np.array(SHARES)
    assert np.abs(counts - wanted).max() <= 3


def test_pictures_with_nothing_but_tags_of_their_own_are_divided_by_the_shares():
    split_of = stratified_split([(i,) for i in range(2000)], keys(2000), SHARES)
    assert np.bincount(split_of).tolist() == [1600, 200, 200]


def test_a_few_rare_classes_are_all_trained_on():
    labels = [(0,)] * 90 + [(0, 1 + i) for i in range(10)]
    assert set(stratified_split(labels, keys(100), SHARES)[90:]) == {0}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), max_size=4, unique=True), min_size=1, max_size=120),
    st.integers(0, 5),
    st.sampled_from([[0.8, 0.1, 0.1], [0.5, 0.5], [0.7, 0.3], [1.0], [0.34, 0.33, 0.33]]),
)
def test_whatever_the_labels_every_picture_lies_in_one_split_and_none_is_starved(labels, seed, shares):
    labels = [tuple(sorted(names)) for names in labels]
    split_of = stratified_split(labels, keys(len(labels), seed), shares)
    sizes = np.bincount(split_of, minlength=len(shares))
    assert sizes.sum() == len(labels)
    # A class that can be divided rounds each split's share up or down by less than a picture; most have few.
    assert sizes == pytest.approx(np.array(shares) * len(labels), abs=3 + 0.15 * len(labels))
