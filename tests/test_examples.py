"""The example programs, each started as its user starts it, and the parts that no program here can reach."""

import contextlib
import hashlib
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcar_tf.exporting.folder import write_checksums
from pipelines import pictures

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
    assert re.fullmatch(r"\(\d+ ms\)\n", result.stderr)  # nothing of the runtime's own
    told = dict(line.rsplit(": ", 1) for line in result.stdout.splitlines())
    assert {name: float(prob) for name, prob in told.items()} == pytest.approx(
        dict(zip(CLASSES, probs, strict=True)), abs=0.006
    )
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == (60, 44)


@pytest.fixture
def preview_model():
    """A model of the phone preview without a file: what it decides and draws, given outputs."""
    model = object.__new__(load("phone_preview").Model)
    model.labels = list(CLASSES)
    model.thresholds = np.array([0.6, 0.6, 0.4, 0.95])
    return model


OUTPUTS = {
    "probs": np.array([0.9, 0.7, 0.5, 0.9]),
    "global_probs": np.array([0.2, 0.05, 0.5, 0.9]),
    "boxes": np.array([[0, 0, 0.5, 0.5], [0, 0.5, 1, 1], [0.5, 0, 1, 1]]),
    "box_classes": np.array([0, 1, 3]),
}


def test_the_phone_preview_decides_by_each_classes_own_threshold(preview_model):
    assert preview_model.decide(OUTPUTS) == [0, 1, 2]
    assert preview_model.decide(OUTPUTS, threshold=0.8) == [0, 3]


def test_the_phone_preview_draws_the_regions_of_what_is_present(preview_model):
    """Of three regions the first is shown: the second's class was not seen at first, the third's is not present."""
    drawn = np.asarray(preview_model.draw(Image.new("RGB", (400, 320)), OUTPUTS))
    yellow = (drawn == (255, 213, 0)).all(axis=-1)
    assert yellow[159, :200].all()
    assert yellow[100:159, 0].all()
    assert not yellow[161:].any()
    assert not yellow[:, 210:].any()
    # Two captions, of the classes that are present without a region, one above the other in the lower left corner.
    white = (drawn == 255).all(axis=-1)
    assert white[-38:, :100].mean() > 0.6
    assert not white[:-60].any()
    assert not white[:, 300:].any()


def test_long_names_do_not_stop_the_drawing(preview_model):
    preview_model.labels = ["x" * 20_000] * 4
    assert preview_model.draw(Image.new("RGB", (40, 32)), OUTPUTS).size == (40, 32)


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_the_phone_preview_opens_pictures_and_nothing_else(tmp_path):
    """Pillow would start Ghostscript for PostScript, whatever the file's name is."""
    preview = load("phone_preview")
    assert not {"EPS", "PSD", "FITS", "WMF"} & set(preview.FORMATS)
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match=r"script.jpg can't be shown as a picture: cannot identify"):
        preview.read_picture(tmp_path / "script.jpg")


def test_the_phone_preview_asks_for_the_size_before_it_reads(tmp_path):
    preview = load("phone_preview")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(30 * 2**30)
    with pytest.raises(ValueError, match=r"sparse.png has 30720 MiB, more than 100"):
        preview.read_picture(tmp_path / "sparse.png")
    save(Image.new("1", (8000, 6300)), tmp_path / "wide.png")
    with pytest.raises(ValueError, match="it has 8000 x 6300 pixels"):
        preview.read_picture(tmp_path / "wide.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
def test_the_phone_preview_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match=r"pipe.jpg is not a file"):
        load("phone_preview").read_picture(tmp_path / "pipe.jpg")


def test_the_phone_preview_does_not_decode_thousands_of_scans(tmp_path):
    save(Image.new("L", (64, 48), 128), tmp_path / "bomb.jpg", progressive=True)
    *before, last = (tmp_path / "bomb.jpg").read_bytes().removesuffix(b"\xff\xd9").split(b"\xff\xda")
    (tmp_path / "bomb.jpg").write_bytes(b"\xff\xda".join([*before, *[last] * 10_000]) + b"\xff\xd9")
    with pytest.raises(ValueError, match="more than 300 scans"):
        load("phone_preview").read_picture(tmp_path / "bomb.jpg")


def test_the_phone_preview_sees_what_training_saw(tmp_path):
    """16 bits are cut to 8, what is transparent is white, and the picture is upright."""
    preview = load("phone_preview")
    grey = Image.fromarray(np.full((4, 6), 128 * 256 + 7, np.uint16))
    assert preview.read_picture(save(grey, tmp_path / "grey.png")).getpixel((0, 0)) == (128, 128, 128)
    clear = Image.new("RGBA", (6, 4), (10, 20, 30, 0))
    assert preview.read_picture(save(clear, tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(Image.new("RGB", (6, 4)), tmp_path / "turned.jpg", exif=exif)
    assert preview.read_picture(turned).size == (4, 6)
    save(Image.fromarray(np.full((4, 6), 0.5, np.float32)), tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point numbers"):
        preview.read_picture(tmp_path / "float.tif")


def test_the_phone_preview_opens_no_format_that_training_does_not():
    assert set(load("phone_preview").FORMATS) == set(pictures.FORMATS) - {"JPEG2000", "AVIF"}


def test_the_phone_preview_refuses_a_file_that_was_changed(folder, tmp_path):
    preview = load("phone_preview")
    content = (folder / "mcar-float32.tflite").read_bytes()
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  mcar-float32.tflite\n")
    (tmp_path / "mcar-float32.tflite").write_bytes(content)
    assert preview.Model(tmp_path / "mcar-float32.tflite").labels == list(CLASSES)
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (tmp_path / "mcar-float32.tflite").write_bytes(changed)
    with pytest.raises(ValueError, match="is not what was exported: its checksum differs"):
        preview.Model(tmp_path / "mcar-float32.tflite")


def test_an_answer_without_numbers_is_refused(preview_model):
    preview_model.width = preview_model.height = 8
    preview_model.dtype = np.float32
    preview_model.runner = lambda image: {"probs": np.full((1, 4), np.nan, np.float32)}
    with pytest.raises(ValueError, match="holds no numbers: the file is damaged"):
        preview_model.look(Image.new("RGB", (8, 8)))


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
    assert all(prob >= 0.6 for prob in good["labels"].values())
    assert result.stderr == ""  # nothing of TensorFlow's own


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_the_client_refuses_a_saved_model_that_was_changed(folder, tmp_path, name):
    client = load("serve_client")
    export = Path(shutil.copytree(folder / "saved_model", tmp_path / "x" / "saved_model")).parent
    write_checksums(export)
    client.check_files(export / "saved_model" / "1")
    changed = export / "saved_model" / "1" / name
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    request = client.make_request([(folder / "photo.png").read_bytes()])
    with pytest.raises(ValueError, match=f"{name} is not what was exported: its checksum differs"):
        client.ask_saved_model(export / "saved_model" / "1", request)
    changed.unlink()
    with pytest.raises(ValueError, match=f"{name} is not what was exported"):
        client.check_files(export / "saved_model" / "1")


@contextlib.contextmanager
def listening(handler, server=http.server.ThreadingHTTPServer):
    """The address of models on a server that runs here."""
    with server(("localhost", 0), handler) as running:
        running.ended = threading.Event()  # for handlers that would go on for ever
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://localhost:{running.server_address[1]}/v1/models"
        running.ended.set()
        running.shutdown()


@pytest.fixture
def ask_client(tmp_path, monkeypatch, capsys):
    """Runs the client for one picture here; its output, or the line that it ends with."""
    client = load("serve_client")
    (tmp_path / "photo.jpg").write_bytes(b"abc")

    def ask(*words):
        words = [sys.argv[0], str(tmp_path / "photo.jpg"), *map(str, words)]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
        try:
            client.main()
        except SystemExit as ended:
            line = ended.code
        else:
            sys.stdout.seek(0)
            return json.loads(sys.stdout.read())
        assert isinstance(line, str)
        assert line.startswith("error: ")
        assert line.isprintable()
        return line

    return ask


def answering(content, status=200):
    """A handler that gives this answer to every request."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Server


ROW = {
    "valid": True,
    "probs": [0.9, 0.1],
    "global_probs": [0.8, 0.1],
    "box_classes": [0],
    "box_probs": [0.9],
    "boxes": [[0, 0, 1, 1]],
}


def row(**outputs):
    return json.dumps({"predictions": [ROW | outputs]}).encode()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"<html>It works!</html>", "answered what is not JSON: b'<html>It works!</html>'"),
        (b"\xff\xfe\x00", "answered what is not JSON"),
        (b'{"outputs": []}', "has no `predictions` for 1 picture: {'outputs': []}"),
        (b"[]", "has no `predictions` for 1 picture: []"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"predictions": [' + b"9" * 5000 + b"]}", "answered what is not JSON"),
        (json.dumps({"predictions": [ROW, ROW]}).encode(), "has no `predictions` for 1 picture"),
        (b'{"predictions": [{"probs": [0.5]}]}', "has no box_classes, box_probs, boxes, global_probs, valid"),
        (b'{"predictions": [0.5]}', "has no box_classes, box_probs, boxes, global_probs, probs, valid"),
        (row(), "labels.txt has 1 names, the model has 2 classes"),
        (row(probs=[float("nan"), 0.5]), "its probs is [NaN, 0.5]"),
        (row(probs=[1e400, 0.5]), "its probs is [Infinity, 0.5]"),
        (row(probs=[1.5, 0.5]), "its probs is [1.5, 0.5]"),
        (row(probs=["0.5", "0.5"]), 'its probs is ["0.5", "0.5"]'),
        (row(probs=[]), "its probs is []"),
        (row(probs=0.5), "its probs is 0.5"),
        (row(global_probs=[0.5]), "its global_probs is [0.5]"),
        (row(valid="yes"), 'its valid is "yes"'),
        (row(box_classes=[-1]), "its box_classes is [-1]"),
        (row(box_classes=[2]), "its box_classes is [2]"),
        (row(box_classes=[0.5]), "its box_classes is [0.5]"),
        (row(box_classes=[0, 1]), "its box_classes is [0, 1]"),
        (row(box_probs=None), "its box_probs is null"),
        (row(boxes=[[0, 0, 1]]), "its boxes is [[0, 0, 1]]"),
        (row(boxes=[[0, 0, 1, "\u001b[31m"]]), "its boxes is"),
    ],
)
def test_the_client_says_in_one_line_what_is_wrong_with_an_answer(ask_client, tmp_path, answer, told):
    (tmp_path / "labels.txt").write_text("cat\n")
    with listening(answering(answer)) as address:
        assert told in ask_client("--labels", tmp_path / "labels.txt", "--url", f"{address}/mcar")


def test_a_row_that_is_wrong_is_found_behind_a_right_one():
    rows = {"predictions": [ROW, ROW | {"probs": [0.5, 0.5, 0.5]}]}
    with pytest.raises(ValueError, match=r"its probs is \[0.5, 0.5, 0.5\]"):
        load("serve_client").read_predictions(rows, 2)


def test_a_server_that_refuses_is_quoted_without_what_steers_a_terminal(ask_client):
    with listening(answering(b"\x1b[31mno\r\n" * 1000 + b"\xff", status=500)) as address:
        told = ask_client("--url", f"{address}/mcar")
    assert "refused the request (500): [31mno" in told
    assert len(told) < 500


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500, b"", b"HTTP/1.1 x\r\n\r\n"],
)
def test_what_is_no_web_server_is_one_line(ask_client, greeting):
    class Server(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(100)
            self.request.sendall(greeting)

    with listening(Server, socketserver.ThreadingTCPServer) as address:
        ask_client("--url", f"{address}/mcar")


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"HTTP/1.1 200 OK\r\nname: "]
)
def test_a_server_that_drips_is_given_up(ask_client, start):
    """A byte every tenth of a second, in the body or in the headers: no single read takes long."""

    class Server(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(100)
            self.request.sendall(start)
            with contextlib.suppress(OSError):
                while not self.server.ended.wait(0.1):
                    self.request.sendall(b"x")

    started = time.monotonic()
    with listening(Server, socketserver.ThreadingTCPServer) as address:
        told = ask_client("--url", f"{address}/mcar", "--timeout", "2")
    assert "gave no whole answer in 2 s" in told
    assert 2 <= time.monotonic() - started < 10
    for thread in threading.enumerate():  # the one that waits for the answer sees the connection end
        if thread is not threading.current_thread() and thread.name.endswith("(ask)"):
            thread.join(10)


def test_an_answer_without_end_is_cut(ask_client):
    class Server(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(100)
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(OSError):
                while not self.server.ended.is_set():
                    self.request.sendall(b"[" * 2**16)

    with listening(Server, socketserver.ThreadingTCPServer) as address:
        assert "answered more than 100 MiB" in ask_client("--url", f"{address}/mcar")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8501",
        "http://localhost:8501/",
        "localhost:8501/v1/models/mcar",
        "file:///etc/passwd",
        "http:///v1/models/mcar",
        "http://localhost:port/v1/models/mcar",
        "http://localhost:99999/v1/models/mcar",
        "http://[::1/v1/models/mcar",
        "http://localhost/v1/models/mcar?x=1",
        "http://localhost/v1/models/m car",
        "",
    ],
)
def test_a_url_that_is_no_models_is_one_line(ask_client, url):
    assert "error: `--url` must be a model's, such as http://localhost:8501/v1/models/mcar" in ask_client(
        "--url", url
    )


def test_a_url_may_end_as_people_end_it():
    predict_url = load("serve_client").predict_url
    for end in ("", "/", ":predict"):
        assert (
            predict_url(f"http://host:8501/v1/models/mcar{end}") == "http://host:8501/v1/models/mcar:predict"
        )


def test_the_client_decides_by_each_classes_own_threshold(ask_client, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    words = ["--labels", tmp_path / "labels.txt"]
    with listening(answering(row(probs=[0.7, 0.3], box_classes=[1], global_probs=[0.7, 0.2]))) as address:
        words += ["--url", f"{address}/mcar"]
        assert ask_client(*words)["labels"] == {"cat": 0.7}  # from 0.6 on
        (tmp_path / "thresholds.json").write_text('{"cat": 0.8, "dog": 0.25}')
        own = ask_client(*words)
        assert own["labels"] == {"dog": 0.3}
        assert own["regions"] == [{"class": "dog", "prob": 0.9, "box": [0, 0, 1, 1]}]
        assert ask_client(*words, "--threshold", 0.1)["labels"] == {"cat": 0.7, "dog": 0.3}
        (tmp_path / "thresholds.json").write_text('{"cat": 7, "dog": 0.25}')
        assert "does not hold a threshold from 0 to 1 for each name" in ask_client(*words)


def test_a_picture_that_is_none_has_no_classes(ask_client):
    nothing = row(valid=False, probs=[0, 0], global_probs=[0, 0], box_classes=[-1], box_probs=[0])
    with listening(answering(nothing)) as address:
        found = ask_client("--url", f"{address}/mcar")
    assert (found["valid"], found["labels"], found["regions"]) == (False, {}, [])


def test_names_with_other_line_breaks_are_whole(tmp_path):
    (tmp_path / "labels.txt").write_text("a\u2028b\nc\u0085d\n", encoding="utf-8")
    assert load("serve_client").read_names(tmp_path / "labels.txt", 2) == ["a\u2028b", "c\u0085d"]


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
    expected = {"image": str(folder / "photo.png")} | client.describe(prediction, CLASSES, [0.6] * 4)
    assert json.loads(served.stdout) == expected
    assert expected["labels"]
    assert unknown.returncode == 1
    assert "refused the request" in unknown.stderr


def test_every_form_is_compared_with_its_model(untrained_run, folder, monkeypatch, capsys):
    words = ["--run", untrained_run, "--export", folder, folder / "photo.png", folder / "photo.png"]
    monkeypatch.setattr(sys, "argv", ["compare_forms.py", *map(str, words)])
    load("compare_forms").main()
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[3:]}
    assert set(rows) == {"saved_model", "mcar-float32.tflite"}
    for labels, _, global_difference, _ in rows.values():
        assert labels == "100%"
        assert float(global_difference) <= 1e-4


def test_boxes_are_the_same_for_the_same_class_only():
    one = {"boxes": np.array([[[0, 0, 1, 1], [0, 0, 0.5, 1]]]), "box_classes": np.array([[3, 1]])}
    other = {"boxes": np.array([[[0, 0, 1, 0.99], [0, 0, 0.5, 1]]]), "box_classes": np.array([[3, 2]])}
    assert load("compare_forms").same_boxes(one, other, 0.02) == 0.5
    assert load("compare_forms").same_boxes(one, other, 0.001) == 0.0


def test_what_both_looks_saw_is_drawn_in_two_rows_a_picture(tiny_run, tmp_path, monkeypatch):
    two_looks = load("two_looks")
    config = tiny_run / "config.yaml"
    config.write_text(config.read_text().replace("glance_size: null", "glance_size: 16"))
    model = two_looks.load_run(tiny_run).model
    assert (model.image_size, model.glance_size, model.local_size, model.top_n) == (32, 16, 16, 2)

    two_looks.main([str(tiny_run), "--rows", "2", "0", "--out", str(tmp_path / "looks.png")])
    with Image.open(tmp_path / "looks.png") as sheet:
        width, height = sheet.size
    assert width == 3 * two_looks.TILE  # the picture and its two regions
    assert height > 4 * two_looks.TILE  # two rows for each of two pictures, with captions
    # Each row's first tile is the whole picture: in 16 px as means of 2 x 2 px, then in 32 px.
    assert two_looks.enlarge(np.array([[[0.6] * 3, [9.4] * 3]] * 2))[0, ::180, 0].tolist() == [1, 9]

    config.write_text(
        config.read_text().replace("top_n: 2", "top_n: 0").replace("glance_size: 16", "glance_size: null")
    )
    with pytest.raises(SystemExit, match="2"):
        two_looks.main([str(tiny_run), "--out", str(tmp_path / "looks.png")])


def test_small_things_are_scenes_of_photographs_with_their_classes(tmp_path, tiny_set, capsys):
    from pipelines.input_pipeline import read_samples
    from pipelines.manifest import load_manifest

    words = ["--dataset", "tiny", "--data-dir", str(tiny_set), "--side", "96", "--photo-side", "20", "32"]
    for out in ("one", "two"):
        load("small_things").main([*words, "--out", str(tmp_path / out)])
    lines = (tmp_path / "one" / "labels.csv").read_text().splitlines()
    files = {line.split(",")[0]: line.split(",")[1].split(";") for line in lines[1:]}
    assert lines[0] == "file,labels,split"
    assert sorted(files) == sorted(path.name for path in (tmp_path / "one").glob("*.jpg"))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()

    manifest = load_manifest(tiny_set, "tiny")
    assert capsys.readouterr().out == 2 * "train: 16 scenes\ntest: 16 scenes\n"
    shown_twice = 0
    for split in ("train", "test"):
        samples = [sample for sample, _ in read_samples(manifest.splits[split].files)]
        for index, sample in enumerate(samples):
            own = {manifest.classes[label] for label in sample.present}
            assert own <= {*files[f"{split}-{index:05d}.jpg"]}
            shown_twice += own != {*files[f"{split}-{index:05d}.jpg"]} - {""}
    assert shown_twice  # the classes of a second photograph count too


def test_a_scene_shows_its_photographs_sharp_whole_and_apart(make_sample):
    small_things = load("small_things")
    sample = make_sample("train", 0)
    photo = np.asarray(small_things.open_photo(sample), np.float32)  # 48 x 64 px, noise and two squares
    rng, counts = np.random.default_rng(0), []
    for _ in range(20):
        scene, present = small_things.make_scene(rng, [sample], 0, 200, (64, 64))
        assert scene.size == (200, 200)
        assert present == sorted(sample.present)
        pixels = np.asarray(scene, np.float32)
        found = np.argwhere(
            [
                [(pixels[y : y + 48 : 9, x : x + 64 : 9] == photo[::9, ::9]).all() for x in range(137)]
                for y in range(153)
            ]
        )
        counts.append(len(found))
        for top, left in found:
            assert (pixels[top : top + 48, left : left + 64] == photo).all()
    assert set(counts) == {1, 2}


def test_photographs_that_do_not_fit_into_a_scene_are_refused(tmp_path, tiny_set, capsys):
    words = ["--dataset", "tiny", "--data-dir", str(tiny_set), "--side", "96", "--photo-side", "20", "33"]
    with pytest.raises(SystemExit, match="2"):
        load("small_things").main([*words, "--out", str(tmp_path / "x")])
    assert "--photo-side must be two sizes from 1 to 32, a third of the scene's" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        load("small_things").main(
            [
                "--dataset",
                "tiny",
                "--data-dir",
                str(tiny_set),
                "--splits",
                "train",
                "val",
                "--out",
                str(tmp_path / "x"),
            ]
        )
    assert "tiny has no split val; it has train, validation, test" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit, match="2"):
        load("small_things").main(["--dataset", "tiny", "--data-dir", str(tiny_set), "--out", str(tmp_path)])
    assert "exists: give a new folder with --out" in capsys.readouterr().err
