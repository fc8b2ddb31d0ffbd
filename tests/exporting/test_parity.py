"""How differences between a form and its model are told."""

import dataclasses

import numpy as np
import pytest

from mcar_tf.exporting.forms import GLOBAL_ONLY, LOOK_AT, LOOKED_AT, LoadedForm, find_form
from mcar_tf.exporting.parity import Parity, match_boxes, measure_parity, missed_bars, parity_lines


@pytest.fixture(scope="module")
def exact(model):
    """A form that is the model itself."""
    return lambda batch: {name: value.numpy() for name, value in model(batch["image"]).items()}


def test_the_model_is_no_different_from_itself(model, exact, batch):
    parity = measure_parity(model, {"form": LoadedForm(exact)}, [batch])["form"]
    assert parity.pictures == 6
    assert parity.global_difference == pytest.approx(0, abs=1e-5)
    assert parity.local_difference == pytest.approx(0, abs=1e-5)
    assert (parity.same_classes, parity.same_boxes, parity.same_top_label) == (1, 1, 1)
    assert parity.box_iou == pytest.approx(1)
    assert parity.mean_ap_loss == pytest.approx(0)


def test_a_difference_is_told_by_its_stream(model, exact, batch):
    def shifted(batch):
        outputs = exact(batch)
        outputs["global_probs"] = outputs["global_probs"] + 0.25
        outputs["local_probs"] = outputs["local_probs"] - 0.125
        return outputs

    parity = measure_parity(model, {"form": LoadedForm(shifted)}, [batch])["form"]
    assert parity.global_difference == pytest.approx(0.25, abs=1e-5)
    assert parity.local_difference == pytest.approx(0.125, abs=1e-5)


def test_every_signature_is_held_to_the_model(model, exact, batch):
    """The largest difference counts, whichever of a form's signatures it is in."""

    def with_global_only(batch):
        outputs = exact(batch)
        return outputs | {GLOBAL_ONLY: outputs["global_probs"] + 0.25}

    def shifted(batch):
        assert (batch["image"] == np.round(batch["image"])).all()
        outputs = exact(batch)
        return outputs | {"global_probs": outputs["global_probs"] - 0.5}

    forms = {"one": LoadedForm(with_global_only), "two": LoadedForm(exact, answer_pixels=shifted)}
    parity = measure_parity(model, forms, [batch])
    assert parity["one"].global_difference == pytest.approx(0.25, abs=1e-5)
    assert parity["two"].global_difference == pytest.approx(0.5, abs=1e-5)
    assert parity["two"].model_mean_ap == parity["one"].model_mean_ap


def test_look_at_is_held_to_the_model_at_its_own_boxes(model, exact, batch):
    boxes = np.tile(np.float32([0.25, 0.25, 0.75, 1.0]), (6, 1, 1))
    looked = model(batch["image"], boxes=boxes)["local_probs"].numpy()
    forms = {
        name: LoadedForm(lambda batch, off=off: exact(batch) | {LOOKED_AT: boxes, LOOK_AT: looked + off})
        for name, off in (("same", 0.0), ("other", 0.125), ("nothing", np.nan))
    }
    parity = measure_parity(model, forms, [batch])
    assert parity["same"].local_difference == pytest.approx(0, abs=1e-5)
    assert parity["other"].local_difference == pytest.approx(0.125, abs=1e-5)
    assert missed_bars(find_form("saved_model").bar, parity["nothing"])


def test_local_probs_are_those_of_the_forms_own_boxes(model, batch):
    boxes = np.tile(np.float32([0.25, 0.25, 0.75, 1.0]), (6, 2, 1))

    def elsewhere(batch):
        return {name: value.numpy() for name, value in model(batch["image"], boxes=boxes).items()}

    parity = measure_parity(model, {"form": LoadedForm(elsewhere)}, [batch])["form"]
    assert parity.local_difference == pytest.approx(0, abs=1e-5)
    assert parity.same_classes == 1
    assert parity.same_boxes < 1


def test_a_form_that_gives_no_numbers_misses_its_bars(model, exact, batch):
    """Every comparison with NaN is false: `> bar` would let it pass."""

    def broken(batch):
        return {
            name: np.full_like(value, np.nan) if value.dtype == np.float32 else value
            for name, value in exact(batch).items()
        }

    parity = measure_parity(model, {"form": LoadedForm(broken)}, [batch])["form"]
    assert {"global_difference", "local_difference", "form_mean_ap"} <= set(parity.unknown)
    for name in ("saved_model", "mcar-int8.tflite"):
        assert missed_bars(find_form(name).bar, parity)


def test_without_labels_nothing_is_said_of_map(model, exact, batch):
    unlabelled = {name: batch[name] for name in ("image", "encoded")}
    parity = measure_parity(model, {"form": LoadedForm(exact)}, [unlabelled])["form"]
    assert (parity.model_mean_ap, parity.form_mean_ap, parity.mean_ap_loss) == (None, None, None)


def test_map_lost_is_the_models_less_the_forms(model, exact, batch):
    parity = dataclasses.replace(
        measure_parity(model, {"form": LoadedForm(exact)}, [batch])["form"],
        model_mean_ap=0.8,
        form_mean_ap=0.7,
    )
    assert parity.mean_ap_loss == pytest.approx(0.1)


def test_no_pictures_are_refused(model, exact):
    with pytest.raises(ValueError, match="no pictures to compare"):
        measure_parity(model, {"form": LoadedForm(exact)}, [])


PROBS = ("probs", "global_probs", "local_probs")


@pytest.mark.parametrize("names", [PROBS, (*PROBS, "boxes", "box_classes", "box_probs")])
def test_a_plain_model_has_no_boxes_to_differ(plain_model, batch, names):
    def form(batch):
        outputs = plain_model(batch["image"])
        return {name: outputs[name].numpy() for name in names}

    parity = measure_parity(plain_model, {"form": LoadedForm(form)}, [batch])["form"]
    assert (parity.same_classes, parity.same_boxes, parity.box_iou) == (1, 1, 1)
    assert parity.local_difference == pytest.approx(0, abs=1e-5)


def test_boxes_are_matched_by_class():
    ours = {
        "box_classes": np.array([[3, 1, 0]]),
        "boxes": np.array([[[0, 0, 0.5, 0.5], [0, 0, 1, 1], [0, 0, 1, 1]]], np.float32),
    }
    theirs = {
        "box_classes": np.array([[1, 3, 2]]),
        "boxes": np.array([[[0, 0, 1, 1], [0, 0.25, 0.5, 0.75], [0, 0, 1, 1]]], np.float32),
    }
    found, same, iou = match_boxes(ours, theirs, half_a_pixel=0.01)
    assert found.tolist() == [[True, True, False]]  # nobody looks for class 0 there
    assert same.tolist() == [[False, True, False]]
    # 0.5 x 0.5 each, 0.5 x 0.25 in common: 0.125 / (0.25 + 0.25 - 0.125) = 1/3.
    np.testing.assert_allclose(iou[0, :2], [1 / 3, 1])


def parity_of(**values):
    perfect = Parity(
        pictures=500,
        global_difference=0.0,
        local_difference=0.0,
        same_classes=1.0,
        same_boxes=1.0,
        box_iou=1.0,
        same_top_label=1.0,
        model_mean_ap=0.8,
        form_mean_ap=0.8,
    )
    return dataclasses.replace(perfect, **values)


@pytest.mark.parametrize(
    ("form", "measured", "missed"),
    [
        ("mcar-float32.tflite", {"global_difference": 1e-4, "local_difference": 1e-4}, ""),
        (
            "mcar-float32.tflite",
            {"global_difference": 2e-4},
            "global probabilities differ by 0.0002, at most 0.0001",
        ),
        ("saved_model", {"local_difference": 0.01}, "given the same boxes, differ by 0.01, at most 0.0001"),
        ("mcar-float32.tflite", {"global_difference": np.nan}, "global_difference is not a number"),
        ("mcar-int8.tflite", {"local_difference": np.nan}, "local_difference is not a number"),
        ("mcar-float16.tflite", {"form_mean_ap": np.nan}, "form_mean_ap is not a number"),
        ("mcar-int8.tflite", {"global_difference": 0.1, "form_mean_ap": 0.795}, ""),
        ("mcar-int8.tflite", {"form_mean_ap": 0.75}, "mAP is lower by 0.05, at most 0.01"),
        ("mcar-int8.tflite", {"form_mean_ap": 0.75, "pictures": 16}, ""),
        ("mcar-int8.tflite", {"form_mean_ap": None, "model_mean_ap": None}, ""),
    ],
)
def test_bars_that_are_missed_are_named(form, measured, missed):
    found = missed_bars(find_form(form).bar, parity_of(**measured))
    assert bool(found) == bool(missed)
    assert missed in "".join(found)


def test_the_table_for_people_has_a_line_a_form():
    measured = parity_of(global_difference=2e-5, local_difference=0.25, same_boxes=0.5, form_mean_ap=None)
    lines = parity_lines({"saved_model": measured, "mcar-int8.tflite": parity_of()})
    assert lines[2].split() == ["saved_model", "2.0e-05", "2.5e-01", "100.0", "50.0", "1.000", "80.00", "-"]
    assert lines[3].split() == [
        "mcar-int8.tflite",
        "0.0e+00",
        "0.0e+00",
        "100.0",
        "100.0",
        "1.000",
        "80.00",
        "80.00",
    ]
    assert len({len(line) for line in lines}) == 1


def test_models_and_forms_are_compared_without_tf32(model, exact, batch):
    import tensorflow as tf

    seen = []

    def answer(batch):
        seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
        return exact(batch)

    assert tf.config.experimental.tensor_float_32_execution_enabled()
    measure_parity(model, {"form": LoadedForm(answer)}, [batch])
    assert seen == [False]
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_at_the_edge_of_a_look_band_the_forms_own_looks_count(batch, make_model):
    """A form whose global probabilities differ by less than its bar may look where the model does not."""
    first = make_model(2)(batch["image"])
    probs = np.take_along_axis(first["global_probs"].numpy(), first["box_classes"].numpy(), axis=1)
    edge = float(min(probs.ravel(), key=lambda prob: abs(prob - 0.5)))
    sides = [
        {name: value.numpy() for name, value in model(batch["image"]).items()}
        for model in (make_model(2, look_band=(edge + shift, 1.0)) for shift in (-5e-6, 5e-6))
    ]
    assert (
        np.abs(sides[0]["local_probs"] - sides[1]["local_probs"]).max() > 1e-3
    )  # or no look would be decided
    model = make_model(2, look_band=(edge - 5e-6, 1.0))
    for side in sides:
        parity = measure_parity(model, {"form": LoadedForm(lambda batch, side=side: side)}, [batch])["form"]
        assert parity.local_difference < 1e-5
