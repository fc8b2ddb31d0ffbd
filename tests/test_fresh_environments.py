"""Where nothing of ours is installed: what is exported must work there. Each test makes a virtual environment."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

EXAMPLES, HELPERS = Path(__file__).parent.parent / "examples", Path(__file__).parent / "helpers"


@pytest.fixture(scope="module")
def run(untrained_run):
    from mcar_tf.runs.loading import load_run

    return load_run(untrained_run)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Exported forms, and a photograph of the model's own size, so that nobody's resizing makes a difference."""
    from mcar_tf.exporting.saved_model import write_saved_model
    from mcar_tf.exporting.tflite import write_tflite

    folder = tmp_path_factory.mktemp("export")
    write_saved_model(run.model, run.classes, folder / "saved_model" / "1")
    for precision, input_type in (("float32", "float32"), ("int8", "uint8")):
        calibration = [photo()] if precision == "int8" else None
        path = folder / f"mcar-{precision}.tflite"
        write_tflite(run.model, run.classes, path, precision, calibration, input_type=input_type)
    Image.fromarray(photo().astype(np.uint8)).save(folder / "photo.jpg", quality=95)
    Image.fromarray(photo().astype(np.uint8)).save(folder / "photo.png")
    return folder


@pytest.fixture
def photo_file(tmp_path):
    Image.fromarray(photo().astype(np.uint8)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def probs(run):
    """The model's own answer for the PNG, by class name."""
    return dict(zip(run.classes, run.model(photo()[np.newaxis])["probs"].numpy()[0].tolist(), strict=True))


def photo():
    """(32, 32, 3) float32 of whole levels."""
    rows, columns = np.mgrid[:32, :32]
    return np.stack([7 * rows, 5 * columns, 3 * (rows + columns)], axis=-1).astype(np.float32)


def make_environment(folder, *packages):
    """The Python of a new virtual environment that holds some packages and what they need."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # -E: pip takes what PYTHONPATH brings along for installed.
    subprocess.run([python, "-E", "-m", "pip", "install", "-q", *packages], check=True)
    return python


def ask(python, *words):
    command = [python, "-E", *map(str, words)]  # -E: whatever PYTHONPATH would bring along
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_tensorflow_alone_answers_a_jpeg(folder, run, tmp_path):
    import tensorflow as tf

    python = make_environment(tmp_path / "env", f"tensorflow=={tf.__version__}")
    found = json.loads(
        ask(python, HELPERS / "ask_saved_model.py", folder / "saved_model" / "1", folder / "photo.jpg")
    )
    image = np.asarray(Image.open(folder / "photo.jpg"), np.float32)[np.newaxis]
    expected = run.model(image)
    assert found["valid"] == [True]
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)


def test_litert_numpy_and_pillow_alone_run_the_phone_preview(folder, probs, tmp_path):
    python = make_environment(tmp_path / "env", "ai-edge-litert", "numpy", "pillow")
    assert ask(python, HELPERS / "has_tensorflow.py") == "False\n"
    script = EXAMPLES / "phone_preview.py"
    for name, tolerance in (("mcar-float32.tflite", 0.006), ("mcar-int8.tflite", 0.05)):
        told = ask(python, script, folder / name, folder / "photo.png", "--threshold", 0)
        found = {line.rsplit(": ", 1)[0]: float(line.rsplit(": ", 1)[1]) for line in told.splitlines()}
        assert found == pytest.approx(probs, abs=tolerance)


def test_mediapipe_reads_labels_and_normalization(folder, run, tmp_path):
    python = make_environment(tmp_path / "env", "mediapipe")
    found = json.loads(ask(python, HELPERS / "read_metadata.py", folder / "mcar-float32.tflite"))
    assert found == {
        "subgraph": "global_only",
        "is_rgb": True,
        "mean": [0.0],
        "std": [1.0],
        "are_labels": True,
        "labels": list(run.classes),
    }


def test_one_half_is_each_classes_own_threshold_to_mediapipe(run, tmp_path):
    """Its classifier takes files of one subgraph alone, so `global_only` is taken out of ours."""
    from mcar_tf.exporting.flatbuffer import pack, unpack
    from mcar_tf.exporting.metadata import add_metadata
    from mcar_tf.exporting.tflite import convert_tflite, load_runner

    model = unpack(convert_tflite(run.model))
    model.subgraphs = model.subgraphs[:1]
    (signature,) = (one for one in model.signatureDefs if one.signatureKey == b"global_only")
    signature.outputs = [output for output in signature.outputs if output.name == b"global_probs"]
    model.subgraphs[0].outputs = [signature.outputs[0].tensorIndex]
    model.signatureDefs = [signature]
    grey = np.full((1, 32, 32, 3), 100, np.float32)
    probs = load_runner(pack(model), "global_only")(image=grey)["global_probs"][0]
    thresholds = np.clip(probs + np.array([0.02, -0.02, 0.02, -0.02]), 0.001, 0.999)
    content = add_metadata(pack(model), run.classes, is_float=True, thresholds=thresholds, temperature=1.5)
    (tmp_path / "one_look.tflite").write_bytes(content)
    python = make_environment(tmp_path / "env", "mediapipe")
    scores = json.loads(ask(python, HELPERS / "classify_by_mediapipe.py", tmp_path / "one_look.tflite"))
    assert [scores[name] >= 0.5 for name in run.classes] == [False, True, False, True]


def test_requests_to_warm_up_are_those_of_tensorflow_serving(folder, tmp_path):
    package = tmp_path / "package"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(package)]
    subprocess.run([*install, "tensorflow-serving-api", "grpcio"], check=True)
    requests = folder / "saved_model" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert ask(sys.executable, HELPERS / "read_warmup.py", package, requests).splitlines() == [
        "serving_default encoded (1,)",
        "serve_tensor images (1, 32, 32, 3)",
        "global_only encoded (1,)",
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    python = make_environment(folder / "env", "build")
    command = [python, "-m", "build", "--outdir", str(folder / "dist"), str(EXAMPLES.parent)]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def test_a_wheel_and_an_sdist_hold_what_they_need_and_no_tests(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    page = {
        f"mcar_tf/exporting/page/{file.name}"
        for file in (EXAMPLES.parent / "mcar_tf" / "exporting" / "page").iterdir()
    }
    assert page | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert page | {f"{wheel.name.rpartition('-py3')[0]}.dist-info/licenses/LICENSE"} <= installed
    assert {name.partition("/")[0].partition("-")[0] for name in installed} == {"mcar_tf", "pipelines"}
    assert not [name for name in names | installed if name.startswith("tests")]


def test_a_wheel_trains_and_answers_in_an_empty_environment(built, photo_file, tmp_path):
    python = make_environment(tmp_path / "env", str(built[1]))
    mcar = python.with_name("mcar")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words):
        return subprocess.run(
            words, capture_output=True, text=True, cwd=tmp_path, check=True, env=clean
        ).stdout

    assert "  fit " in run(mcar, "--help")
    assert run(mcar, "fit", "--help").startswith("usage: mcar fit [options]")
    trained = run(mcar, "fit", "--epochs", "1", "--image-size", "32", "--top-n", "1")
    assert "mcar predict --run runs/digits-tiny_resnet --images IMAGES --draw" in trained
    answered = run(mcar, "predict", "--run", "runs/digits-tiny_resnet", "--images", photo_file)
    assert "written to runs/digits-tiny_resnet/predictions/predictions.jsonl\nWhat next:\n" in answered
    code = (
        "import mcar_tf, sys; print(sorted(mcar_tf.load_run('runs/digits-tiny_resnet').predict(sys.argv[1])))"
    )
    assert run(python, "-c", code, photo_file) == "['image', 'labels', 'regions']\n"
