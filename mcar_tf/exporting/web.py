"""Write a model as a web page that runs it in the browser: a folder for any static file server."""

import dataclasses
import shutil
from pathlib import Path

from mcar_tf.exporting import tflite
from mcar_tf.exporting.forms import LoadedForm, Material, find_form
from mcar_tf.exporting.litert_js import HOST, VERSION, addresses, copy_litert
from mcar_tf.exporting.pages import page_files
from mcar_tf.runs.thresholds import DEFAULT_THRESHOLD

MODEL = "mcar.tflite"


def write_form(material: Material, path: Path, precision: None = None) -> None:
    """Write the form `web` of the table of forms."""
    path.mkdir()
    beside = path.parent / find_form("mcar-float32.tflite").path
    if beside.is_file() and material.tflite_input == "float32":  # written just before
        shutil.copyfile(beside, path / MODEL)
    else:
        tflite.write_form(dataclasses.replace(material, tflite_input="float32"), path / MODEL, "float32")
    if material.litert:
        copy_litert(material.litert, path / "litert")
        host, place, version = "", "./litert", ""
        print("its runtime lies beside it, so it asks no other host ...", end=" ")
    else:
        host, place, version = HOST, f"{HOST}/npm/@litertjs", f"@{VERSION}"
        print(f"it loads its runtime from {HOST} (--litert DIR: from beside it) ...", end=" ")
    thresholds = material.thresholds or [DEFAULT_THRESHOLD] * len(material.classes)
    settings = {
        "engine": "litert",
        "name": material.name,
        "labels": list(material.classes),
        "thresholds": [float(value) for value in thresholds],
        "model": MODEL,
        "image_size": material.model.image_size,
        "litert": f"{place}/core{version}/wasm/",
    }
    for name, (content, _) in page_files(settings, addresses(place, version), host).items():
        (path / name).write_bytes(content)


def load_form(path: Path) -> LoadedForm:
    """The page's model file, to compare it with its model."""
    return tflite.load_form(path / MODEL)
