"""Event files, read back by TensorBoard's own reader, hold what the page shows."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.pr_curve.metadata import RECALL_INDEX

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import evaluate_predictions
from mcar_tf.training.tensorboard import TensorBoardLog, markdown_table

CLASSES = ("cat", "dog or wolf", "rare")
ROW = {
    "epoch": 2,
    "loss": 1.5,
    "global_loss": 0.5,
    "local_loss": 1.0,
    "val_mAP_fused": 0.75,
    "val_mAP_global": 0.5,
    "val_mAP_local": math.nan,
    "learning_rate": 0.001,
    "images_per_second": 12.0,
}


def sees_a_cat(images, training=False):
    """A model: a cat in the left half of every image."""
    count = len(images)
    return {
        "global_probs": tf.constant([[0.8, 0.1, 0.1]] * count),
        "local_probs": tf.constant([[0.9, 0.1, 0.1]] * count),
        "probs": tf.constant([[0.9, 0.1, 0.1]] * count),
        "boxes": tf.constant([[[0.0, 0.0, 1.0, 0.5]]] * count),
        "box_classes": tf.constant([[0]] * count),
        "box_probs": tf.constant([[0.9]] * count),
    }


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """What the reader finds of one epoch and a result; "rare" has no positives."""
    folder = tmp_path_factory.mktemp("events")
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], np.float32)
    probs = np.array([[0.9, 0.1, 0.5], [0.2, 0.8, 0.5], [0.7, 0.3, 0.5], [0.8, 0.2, 0.5]], np.float32)
    regions = np.zeros((4, 1, 4), np.float32), np.zeros((4, 1), np.int32), np.zeros((4, 1), np.float32)
    predictions = Predictions(
        np.array(list("abcd")), labels, np.ones_like(labels), probs, probs, probs, *regions
    )
    log = TensorBoardLog(folder, FitConfig(epochs=2, momentum=0.8), CLASSES)
    log.write_epoch(ROW, sees_a_cat, tf.fill((6, 32, 32, 3), 100.0), predictions)
    log.write_result("test", evaluate_predictions(predictions), predictions)
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def value_of(events, tag):
    (event,) = events.Tensors(tag)
    return tf.make_ndarray(event.tensor_proto), event.step


def test_curves_have_the_rows_numbers(events):
    for tag, number in {
        "loss/total": 1.5,
        "loss/global": 0.5,
        "loss/local": 1.0,
        "mAP/fused": 0.75,
        "mAP/global": 0.5,
        "rate/backbone": 0.001,
        "rate/head": 0.01,
        "speed/images_per_second": 12.0,
    }.items():
        value, step = value_of(events, tag)
        assert (value, step) == (pytest.approx(number), 2), tag


def test_unknown_numbers_are_no_points(events):
    tags = events.Tags()["tensors"]
    assert "mAP/local" not in tags
    assert "per_class_AP/rare" not in tags


def test_each_class_has_its_average_precision(events):
    # cat: ranked positive, negative, positive -> (1 + 2/3) / 2. dog: ranked positive, positive.
    assert value_of(events, "per_class_AP/cat") == (pytest.approx(5 / 6), 2)
    assert value_of(events, "per_class_AP/dog or wolf") == (pytest.approx(1), 2)


def test_precision_recall_curves_reach_recall_1_at_threshold_0(events):
    for name in ("all", "cat", "dog or wolf"):
        curve, _ = value_of(events, f"precision_recall/{name}/pr_curves")
        assert curve[RECALL_INDEX][0] == 1, name
    assert "precision_recall/rare/pr_curves" not in events.Tags()["tensors"]


def test_panels_of_four_show_images_with_their_regions(events):
    for tag, tiles in (("regions/1", (2, 2)), ("regions/2", (1, 2))):  # six images: four and two
        (width, height, encoded), step = value_of(events, tag)
        panel = np.asarray(Image.open(io.BytesIO(encoded)))
        assert panel.shape == (int(height), int(width), 3) == (320 * tiles[0], 320 * tiles[1], 3)
        assert step == 2
        assert (panel == (255, 213, 0)).all(axis=-1).any()  # the first region's colour


def test_a_result_without_positives_is_a_dash(tmp_path):
    empty = np.zeros((2, 3), np.float32)
    regions = np.zeros((2, 0, 4), np.float32), np.zeros((2, 0), np.int32), np.zeros((2, 0), np.float32)
    predictions = Predictions(np.array(["a", "b"]), empty, empty + 1, empty, empty, empty, *regions)
    log = TensorBoardLog(tmp_path, FitConfig(), CLASSES)
    log.write_result("test", evaluate_predictions(predictions), predictions)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    text, _ = value_of(events, "result")
    assert "| fused | - |" in text.item().decode()
    assert "nan" not in text.item().decode()
    assert "result/mAP_fused" not in events.Tags()["tensors"]


def test_the_plain_backbone_shows_no_regions(tmp_path):
    log = TensorBoardLog(tmp_path, FitConfig(top_n=0), CLASSES)
    log.write_epoch(ROW, sees_a_cat, tf.fill((2, 32, 32, 3), 100.0))
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]
    assert "loss/total" in tags
    assert not [tag for tag in tags if tag.startswith("regions")]


def test_nothing_else_clutters_the_page(events):
    groups = {tag.split("/")[0] for tag in events.Tags()["tensors"]}
    curves = {"loss", "mAP", "per_class_AP", "rate", "result", "speed"}
    assert groups - {"_hparams_"} == curves | {"config", "precision_recall", "regions"}


def test_options_and_result_are_text(events):
    options, _ = value_of(events, "config")
    assert b"| backbone | mobilenet_v2 |" in options.item()
    result, _ = value_of(events, "result")
    text = result.item().decode()
    assert text.startswith("test, in percent")
    assert "| fused | 91.7 |" in text  # (5/6 + 1) / 2


def test_the_result_is_a_number_too(events):
    assert value_of(events, "result/mAP_fused") == (pytest.approx(11 / 12), 2)


def test_options_that_may_decide_the_result_are_hyperparameters(events):
    content = events.PluginTagToContent("hparams")
    assert set(content) == {"_hparams_/experiment", "_hparams_/session_start_info"}
    options = content["_hparams_/session_start_info"]
    assert b"mobilenet_v2" in options  # one that the paper varies
    assert b"momentum" in options  # one that this run sets
    assert b"weight_decay" not in options  # one as it always is
    assert b"keep_checkpoints" not in options
    assert b"result/mAP_fused" in content["_hparams_/experiment"]


def test_bars_in_cells_do_not_break_a_table():
    assert markdown_table(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |\n"
