"""Figures are SVG that any browser reads, hold what they are about as text, and run nothing."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mcar_tf.reporting import figures

CLASSES = ("cat", "<script>alert(1)</script>", "$x_1$ & more", "a class with quite a long name")


def texts_of(svg):
    """All text of an SVG file; fails if it isn't well-formed, refers to anything outside or holds a script."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert not element.tag.endswith("}script")
        for name, value in element.attrib.items():
            assert not (name.endswith("href") and not value.startswith(("#", "data:")))
    return " ".join(element.text or "" for element in root.iter() if element.tag.endswith("}text"))


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 4)) < 0.3).astype(np.float32)
    labels[:, 3] = 0
    return labels, rng.random((50, 4)), np.ones_like(labels)


def test_losses_of_one_run_and_of_several():
    rows = [{"epoch": e, "loss": 1 / e, "global_loss": 0.5 / e, "local_loss": 0.5 / e} for e in (1, 2, 3)]
    assert {"total", "global", "local"} <= set(texts_of(figures.plot_losses({"run": rows})).split())
    several = texts_of(figures.plot_losses({"run": rows, "a $ & <b>": rows[:1]}))
    assert "a $ & <b>: total" in several


def test_a_history_without_validation_makes_an_empty_plot():
    assert "epoch" in texts_of(figures.plot_validation_map({"run": [{"epoch": 1, "loss": 1}]}))


def test_average_precision_of_classes_against_a_baseline():
    aps = {"run": np.array([0.9, 0.2, 0.5, np.nan]), "baseline": np.array([0.8, 0.3, 0.5, np.nan])}
    texts = texts_of(figures.plot_class_ap(CLASSES, aps, [5, 6, 7, 0]))
    assert "cat (5)" in texts
    assert "<script>alert(1)</s…" in texts  # cut to 20 letters, and text, not markup
    assert "$x_1$ & more" in texts
    assert "baseline" in texts
    assert "a class with" not in texts  # nothing is known of it


def test_precision_recall_has_a_panel_a_class():
    labels, probs, weights = (
        np.eye(4)[[0, 1, 2, 0]],
        np.random.default_rng(0).random((4, 4)),
        np.ones((4, 4)),
    )
    texts = texts_of(figures.plot_precision_recall(CLASSES, labels, {"run": probs}, weights))
    assert "cat" in texts
    assert "a class with" not in texts


def test_of_many_classes_the_best_and_the_worst_are_shown():
    # One image a class; class c is first, second .. in its own ranking: AP 1 / (c + 1).
    labels = np.eye(30)
    probs = np.where(np.arange(30)[:, None] < np.arange(30), 0.9, 0.1) + 0.5 * labels - 0.4 * (labels == 1)
    names = [f"class-{c}" for c in range(30)]
    texts = texts_of(figures.plot_precision_recall(names, labels, {"run": probs}, np.ones((30, 30)), most=4))
    assert sum(name in texts.split() for name in names) == 4
    assert {"class-0", "class-29"} <= set(texts.split())


def test_confusions_name_the_classes_with_the_most_false_claims():
    claimed, pictures = np.zeros((4, 4), int), np.full((4, 4), 10)
    claimed[0, 1], claimed[2, 3] = 5, 1
    texts = texts_of(figures.plot_confusions(CLASSES, claimed, pictures, most=2))
    assert "cat" in texts
    assert "<script>alert…" in texts
    assert "$x_1$" not in texts


def test_a_rate_of_few_pictures_is_not_drawn():
    claimed, pictures = np.zeros((4, 4), int), np.full((4, 4), 10)
    claimed[0, 1], claimed[1, 0] = 4, 4
    drawn = figures.plot_confusions(CLASSES, claimed, pictures)
    pictures[1, 0] = 4  # four of four: would be the darkest
    assert figures.plot_confusions(CLASSES, claimed, pictures) != drawn
    claimed[1, 0] = 1
    few = figures.plot_confusions(CLASSES, claimed, pictures)
    claimed[1, 0] = 4
    assert figures.plot_confusions(CLASSES, claimed, pictures) == few


def test_the_same_numbers_give_the_same_file(scored):
    labels, probs, weights = scored
    draw = lambda: figures.plot_precision_recall(CLASSES, labels, {"run": probs}, weights)  # noqa: E731
    assert draw() == draw()
