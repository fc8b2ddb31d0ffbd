"""The table of export forms, and what it takes to add one."""

import dataclasses
import json

import pytest

from mcar_tf import export
from mcar_tf.exporting import forms
from mcar_tf.exporting.forms import FORMS, Bar, Form, choose_forms, find_form


def test_every_line_has_a_name_and_a_place_of_its_own():
    assert len({form.name for form in FORMS}) == len({form.path for form in FORMS}) == len(FORMS)
    for form in FORMS:
        assert find_form(form.name) is form


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_module_writes_and_loads(form):
    module = form.load_module()
    assert callable(module.write_form)
    assert callable(module.load_form)


def test_forms_come_in_the_order_of_the_table_and_once():
    chosen = choose_forms(["tflite", "saved_model"], ["int8", "float32", "int8"])
    assert [form.name for form in chosen] == ["saved_model", "mcar-float32.tflite", "mcar-int8.tflite"]


@pytest.mark.parametrize(
    ("formats", "precisions", "message"),
    [
        (
            ["tflight"],
            ["float32"],
            r"`formats` must be among saved_model, tflite, web, onnx. Received: 'tflight'. Did you mean",
        ),
        (["tflite"], ["int4"], r"`precision` must be among float32, .*, int8. Received: 'int4'"),
    ],
)
def test_what_the_table_does_not_have_is_refused(formats, precisions, message):
    with pytest.raises(ValueError, match=message):
        choose_forms(formats, precisions)


def test_a_missing_package_is_named_with_the_extra_that_brings_it():
    form = Form("tflite", "mcar-int4.tflite", "", Bar(), needs=("json", "no_such_package"), extra="phone")
    with pytest.raises(
        ValueError, match=r"mcar-int4.tflite needs no-such-package: pip install 'mcar-tf\[phone\]'"
    ):
        form.check_installed()


def test_a_form_is_added_by_a_module_and_a_line(untrained_run, tmp_path, monkeypatch):
    """`tests/helpers/weights_form.py` is the module; the command, the bars, the comparison and the papers follow."""
    line = Form("weights", "mcar.npz", "weights_form", Bar(global_difference=1e-4))
    monkeypatch.setattr(forms, "FORMS", (*FORMS, line))
    monkeypatch.setattr(forms, "FORMATS", (*forms.FORMATS, "weights"))
    words = ["--run", untrained_run, "--out-dir", tmp_path / "out", "--formats", "weights", "--pictures", "2"]
    export.main([str(word) for word in words])
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["forms"]["mcar.npz"]["global_difference"] == 0
    assert parity["bars"]["mcar.npz"] == dataclasses.asdict(line.bar)
    assert "mcar.npz" in (tmp_path / "out" / "card.md").read_text()
