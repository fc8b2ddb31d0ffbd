"""Figures are SVG that any browser reads, hold what they are about as text, and run nothing."""

import xml.etree.ElementTree as ElementTree

import numpy as np

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
    curve = np.array([1, 0.5]), np.array([0.5, 1])
    texts = texts_of(
        figures.plot_precision_recall(CLASSES[:2], np.array([0.75, 0.5]), {"run": [curve, curve]})
    )
    assert "cat 75" in texts
    assert "<script>alert" in texts


def test_control_characters_leave_a_figure_readable():
    names = ["a\x1b[31m\x00b", "\ud800", "\uffff"]
    texts = texts_of(figures.plot_class_ap(names, {"run": np.array([0.5, 0.4, 0.3])}, [1, 2, 3]))
    assert "a\\x1b[31m\\x00b (1)" in texts
    assert "\\ud800 (2)" in texts
    texts = texts_of(figures.plot_confusions(names, np.eye(3), np.full((3, 3), 9)))
    assert "\\uffff" in texts


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


def test_the_same_numbers_give_the_same_file():
    curve = np.array([1, 0.5]), np.array([0.5, 1])
    draw = lambda: figures.plot_precision_recall(CLASSES[:1], np.array([0.75]), {"run": [curve]})  # noqa: E731
    assert draw() == draw()
