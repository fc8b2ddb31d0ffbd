"""The example programs, each started as its user starts it, and the parts that no program here can reach."""

import contextlib
import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES, HELPERS = Path(__file__).parent.parent / "examples", Path(__file__).parent / "helpers"
CLASSES = ("red", "green", "blue", "<b>rare & odd</b>")


@pytest.fixture(scope="module")
def model(untrained_run):
    from mcar_tf.runs.loading import load_run

    return load_run(untrained_run).model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """What an export folder holds of what the examples read, and two pictures."""
    from mcar_tf.exporting.saved_model import write_saved_model
    from mcar_tf.exporting.tflite import write_tflite

    folder = tmp_path_factory.mktemp("export")
    write_saved_model(model, CLASSES, folder / "saved_model" / "1")
    write_tflite(model, CLASSES, folder / "mcar-float32.tflite")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (folder / "broken.jpg").write_bytes(b"no picture")
    picture().save(folder / "photo.png")
    return folder


def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((60, 44), Image.Resampling.BICUBIC)


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(name, *words):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_phone_preview_sees_what_the_model_sees(folder, model, tmp_path):
    result = start(
        "phone_preview",
        folder / "mcar-float32.tflite",
        folder / "photo.png",
        "--out",
        tmp_path / "seen.png",
        "--threshold",
        0,
    )
    assert result.returncode == 0, result.stderr
    small = picture().resize((32, 32), Image.Resampling.BILINEAR)
    probs = model(np.asarray(small, np.float32)[np.newaxis])["probs"].numpy()[0]
    told = dict(line.rsplit(": ", 1) for line in result.stdout.splitlines())
    assert {name: float(prob) for name, prob in told.items()} == pytest.approx(
        dict(zip(CLASSES, probs, strict=True)), abs=0.006
    )
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == (60, 44)


def test_the_phone_preview_draws_the_regions_that_the_paper_shows():
    preview = load("phone_preview")
    model = object.__new__(preview.Model)
    model.labels = list(CLASSES)
    outputs = {
        "probs": np.array([0.9, 0.7, 0.5, 0.9]),
        "global_probs": np.array([0.2, 0.05, 0.5, 0.9]),
        "boxes": np.array([[0, 0, 0.5, 0.5], [0, 0.5, 1, 1], [0.5, 0, 1, 1]]),
        "box_classes": np.array([0, 1, 2]),
    }
    drawn = np.asarray(model.draw(Image.new("RGB", (100, 80)), outputs))
    green = (drawn == (0, 220, 0)).all(axis=-1)
    assert green[0, :50].all()  # of the first box, the only one whose class is likely enough in both streams
    assert green[39, :50].all()
    assert not green[:, 60:].any()
    assert not green[45:].any()


def test_the_phone_preview_reads_frames_until_the_camera_stops():
    preview = load("phone_preview")
    frames = list(preview.read_frames([sys.executable, str(HELPERS / "write_frames.py")], (4, 2)))
    assert [frame.size for frame in frames] == [(4, 2), (4, 2)]  # the third is not whole
    assert [frame.getpixel((0, 0)) for frame in frames] == [(1, 1, 1), (2, 2, 2)]


def test_frames_have_the_size_that_is_read_whatever_the_camera_gives():
    words = load("phone_preview").camera_command("/dev/video7")
    source, output = words[: words.index("-i")], words[words.index("-i") :]
    assert source[-2:] == ["-video_size", "640x480"]
    assert output[:4] == ["-i", "/dev/video7", "-s", "640x480"]


def test_a_camera_without_a_window_is_one_line(monkeypatch):
    preview = load("phone_preview")
    monkeypatch.setitem(sys.modules, "tkinter", None)  # its import then fails
    with pytest.raises(OSError, match="--camera needs Python's tkinter"):
        preview.preview(None, "/dev/video0")


def test_the_phone_preview_says_in_one_line_what_is_wrong(folder):
    for words in (
        (folder / "absent.tflite", folder / "photo.png"),
        (folder / "mcar-float32.tflite", folder / "absent.jpg"),
        (folder / "mcar-float32.tflite", folder / "broken.jpg"),
        (folder / "photo.png", folder / "photo.png"),
    ):
        result = start("phone_preview", *words)
        assert result.returncode == 1
        assert result.stderr.startswith("error: ")
        assert "Errno" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_client_asks_a_saved_model(folder, model):
    result = start(
        "serve_client",
        folder / "photo.png",
        folder / "broken.jpg",
        "--saved-model",
        folder / "saved_model" / "1",
    )
    assert result.returncode == 0, result.stderr
    good, bad = map(json.loads, result.stdout.splitlines())
    assert bad == {"image": str(folder / "broken.jpg"), "valid": False, "labels": {}, "regions": []}
    assert good["valid"]
    assert set(good["labels"]) <= set(CLASSES)
    assert good["labels"]
    assert all(prob >= 0.5 for prob in good["labels"].values())


@contextlib.contextmanager
def listening(handler):
    """The address of models on a server that runs here."""
    with http.server.HTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/v1/models"
        server.shutdown()


ROW = {"valid": True, "probs": [0.9, 0.1], "box_classes": [0], "box_probs": [0.9], "boxes": [[0, 0, 1, 1]]}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"<html>It works!</html>", "answered what is not JSON: b'<html>It works!</html>'"),
        (b'{"outputs": []}', 'has no `predictions` for 1 pictures: {"outputs": []}'),
        (b"[]", "has no `predictions` for 1 pictures: []"),
        (json.dumps({"predictions": [ROW, ROW]}).encode(), "has no `predictions` for 1 pictures"),
        (b'{"predictions": [{"probs": [0.5]}]}', "has no box_classes, box_probs, boxes, valid"),
        (b'{"predictions": [0.5]}', "has no box_classes, box_probs, boxes, probs, valid"),
        (json.dumps({"predictions": [ROW]}).encode(), "labels.txt has 1 names, the model has 2 classes"),
    ],
)
def test_the_client_says_in_one_line_what_is_wrong_with_an_answer(tmp_path, answer, told):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    (tmp_path / "photo.jpg").write_bytes(b"abc")
    (tmp_path / "labels.txt").write_text("cat\n")
    with listening(Server) as address:
        words = [tmp_path / "photo.jpg", "--labels", tmp_path / "labels.txt", "--url", f"{address}/mcar"]
        result = start("serve_client", *words)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr


def test_the_client_asks_a_server_the_same(folder):
    """A server in TensorFlow Serving's place, which isn't to be had here: its predict API on the SavedModel."""
    client = load("serve_client")
    bodies = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            request = json.loads(bodies[-1])
            known = self.path == "/v1/models/mcar:predict"
            answer = (
                client.ask_saved_model(folder / "saved_model" / "1", request)
                if known
                else {"error": "unknown"}
            )
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with listening(Server) as address:
        words = [folder / "photo.png", "--labels", folder / "labels.txt", "--url"]
        served = start("serve_client", *words, f"{address}/mcar")
        unknown = start("serve_client", *words, f"{address}/other")
        (folder / "tiny.jpg").write_bytes(b"abc")
        start("serve_client", folder / "tiny.jpg", "--url", f"{address}/other")
    # The row format of TensorFlow Serving's REST API; "YWJj" is "abc" in base64.
    assert bodies[2] == b'{"signature_name": "serving_default", "instances": [{"b64": "YWJj"}]}'
    request = client.make_request([(folder / "photo.png").read_bytes()])
    (prediction,) = client.ask_saved_model(folder / "saved_model" / "1", request)["predictions"]
    assert served.returncode == 0, served.stderr
    expected = {"image": str(folder / "photo.png")} | client.describe(
        prediction, list(CLASSES), threshold=0.5
    )
    assert json.loads(served.stdout) == expected
    assert expected["labels"]
    assert unknown.returncode == 1
    assert "refused the request" in unknown.stderr
