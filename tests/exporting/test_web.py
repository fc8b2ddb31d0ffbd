"""The page: what is in its folder, and, where Chromium and npm's packages are at hand, what it does in a browser.

npm install --no-save @litertjs/core@2.5.3 playwright-core     (here, or in the folder that MCAR_TF_NPM names)
"""

import contextlib
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcar_tf.exporting.forms import Material
from mcar_tf.exporting.litert_js import VERSION, find_litert
from mcar_tf.exporting.pages import page_files

ROOT = Path(__file__).parents[2]
NPM = Path(os.environ.get("MCAR_TF_NPM", ROOT))
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    not (BROWSER and shutil.which("node") and (NPM / "node_modules" / "playwright-core").is_dir()),
    reason="needs chromium, node and playwright-core",
)
CLASSES, SIZE = ("cat", "dog", "sheep", "Tür", "potted plant"), 32  # those of the model
THRESHOLDS = (0.5, 0.2, 0.9, 0.4, 0.3)


def encode(pixels, size, format):
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, format)
    return file.getvalue()


def write_page(model, folder, litert=None):
    from mcar_tf.exporting.web import write_form

    write_form(Material(model, CLASSES, THRESHOLDS, name="a <b>name</b>", litert=litert), folder / "web")
    return folder / "web"


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """A page that loads its runtime from another host."""
    return write_page(model, tmp_path_factory.mktemp("page"))


def test_the_folder_is_a_page_and_a_model(page):
    names = {path.name for path in page.iterdir()}
    assert names == {
        *("index.html", "page.css", "page.js", "picture.js", "litert.js", "icon.svg"),
        *("settings.json", "mcar.tflite"),
    }
    settings = json.loads((page / "settings.json").read_text(encoding="utf-8"))
    assert (settings["labels"], settings["thresholds"]) == (list(CLASSES), list(THRESHOLDS))
    assert settings["image_size"] == SIZE
    text = (page / "index.html").read_text(encoding="utf-8")
    assert "<title>a &lt;b&gt;name&lt;/b&gt;</title>" in text
    assert f"https://cdn.jsdelivr.net/npm/@litertjs/core@{VERSION}/dist/index.js" in text
    assert re.search(r"connect-src 'self' https://cdn\.jsdelivr\.net;", text)


def test_the_model_of_the_page_is_held_to_the_model(page, model, batch):
    from mcar_tf.exporting.parity import measure_parity
    from mcar_tf.exporting.web import load_form

    parity = measure_parity(model, {"web": load_form(page)}, [batch])["web"]
    assert parity.global_difference <= 1e-4
    assert parity.local_difference <= 1e-4


@pytest.mark.parametrize(("tflite_input", "reused"), [("float32", True), ("uint8", False)])
def test_a_file_of_floats_that_was_just_written_is_not_converted_again(
    tflite_input, reused, model, tmp_path, monkeypatch
):
    from mcar_tf.exporting import tflite, web

    (tmp_path / "mcar-float32.tflite").write_bytes(b"just written")
    monkeypatch.setattr(tflite, "write_form", lambda material, path, _: path.write_bytes(b"converted"))
    web.write_form(Material(model, CLASSES, tflite_input=tflite_input), tmp_path / "web")
    assert (tmp_path / "web" / "mcar.tflite").read_bytes() == (b"just written" if reused else b"converted")


def test_a_page_without_others_names_no_other_host():
    for engine in ("server", "litert"):
        settings = {"engine": engine, "name": "x", "labels": [], "thresholds": []}
        text = page_files(settings, {"@litertjs/core": "./litert/core/dist/index.js"})["index.html"][
            0
        ].decode()
        assert "https:" not in text


def test_a_runtime_that_is_absent_or_another_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"run `npm install @litertjs/core@{VERSION}` there"):
        find_litert(tmp_path)
    for name in ("core", "wasm-utils"):
        (tmp_path / "node_modules" / "@litertjs" / name).mkdir(parents=True)
        (tmp_path / "node_modules" / "@litertjs" / name / "package.json").write_text('{"version": "9.9.9"}')
    with pytest.raises(ValueError, match=rf"holds LiteRT\.js 9\.9\.9, not {re.escape(VERSION)}"):
        find_litert(tmp_path)


# ------------------------------------------------------------------ in a browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Any static server."""

    def log_message(self, *arguments):
        pass


class Isolating(Quiet):
    """One that isolates its pages, so that they may have threads."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextlib.contextmanager
def served(folder, server=Quiet):
    handler = functools.partial(server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def make_files(folder, encoded):
    """Pictures of the model's own size and others, and what is none; by name."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (6, 5, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.open(io.BytesIO(encoded[1])).save(turned, "JPEG", exif=exif, quality=95)
    clear = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 4), np.uint8)).save(clear, "PNG")
    files = {
        "own.png": encode(noise, (SIZE, SIZE), "PNG"),
        "larger.png": encode(noise, (131, 97), "PNG"),
        "smaller.png": encode(noise, (7, 11), "PNG"),
        "photo.jpg": encoded[0],
        "turned.jpg": turned.getvalue(),
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "cut.png": encode(noise, (64, 64), "PNG")[:60],
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "<img src=x onerror=alert(1)>.png": encode(noise, (SIZE, SIZE), "PNG"),
        "huge.png": huge_png(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def huge_png():
    """A few kilobytes that promise 8,000 x 7,000 px."""
    file = io.BytesIO()
    Image.new("1", (8000, 7000)).save(file, "PNG", optimize=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def browsed(model, encoded, tmp_path_factory):
    """What the page answered for `make_files`, and these files."""
    folder = tmp_path_factory.mktemp("browsed")
    files = make_files(folder, encoded)
    web = write_page(model, folder, NPM)
    script = ROOT / "tests" / "helpers" / "browse.mjs"
    with served(web) as url:
        words = ["node", script, NPM / "node_modules", BROWSER, url, *files]
        ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout) | {"files": files, "url": url, "model": (web / "mcar.tflite").read_bytes()}


def ask_python(content, file):
    """The same file through Python's LiteRT, on the pixels that training would see."""
    import tensorflow as tf

    from mcar_tf.exporting.tflite import load_runner
    from pipelines.decode import decode_and_resize
    from pipelines.headers import read_orientation

    data = tf.constant(file.read_bytes())
    pixels = decode_and_resize(data, read_orientation(data), SIZE).numpy()
    return {name: value[0] for name, value in load_runner(content)(image=pixels[np.newaxis]).items()}


@needs_browser
def test_the_browser_says_what_python_says_to_a_thousandth(browsed):
    """Pixels of PNGs are the same in both, and so is the resize; JPEGs are decoded by other code."""
    for file, answer in zip(browsed["files"][:4], browsed["looked"][:4], strict=True):
        expected = ask_python(browsed["model"], file)
        for name in ("probs", "global_probs", "boxes"):
            np.testing.assert_allclose(answer[name], expected[name], atol=1e-3, err_msg=f"{file.name} {name}")
        assert answer["box_classes"] == expected["box_classes"].tolist()
        present = [c for c in np.argsort(-expected["probs"]) if expected["probs"][c] >= THRESHOLDS[c]]
        assert [label["name"] for label in answer["labels"]] == [CLASSES[c] for c in present]


@needs_browser
def test_a_picture_is_turned_upright(browsed):
    expected = ask_python(browsed["model"], browsed["files"][4])
    np.testing.assert_allclose(browsed["looked"][4]["global_probs"], expected["global_probs"], atol=5e-3)


@needs_browser
def test_what_is_no_picture_is_said_on_its_card_and_others_go_on(browsed):
    cards = {card["name"]: card for card in browsed["cards"]}
    assert [card["name"] for card in browsed["cards"]] == [file.name for file in browsed["files"]]
    notes = {
        name: cards[name]["note"] for name in ("empty.jpg", "text.jpg", "cut.png", "drawing.svg", "huge.png")
    }
    assert notes == {
        "empty.jpg": "An empty file",
        "text.jpg": "Not a picture, or a damaged one",
        "cut.png": "Not a picture, or a damaged one",
        "drawing.svg": "Not a picture",
        "huge.png": "Too large: 8000 × 7000 pixels, 50 megapixels are the most",
    }
    for name in ("own.png", "photo.jpg", "<img src=x onerror=alert(1)>.png"):
        assert re.fullmatch(r"One look: [\d.]+ ms · two looks: [\d.]+ ms", cards[name]["times"])
    assert "text.jpg: not a picture" in browsed["said"]
    assert browsed["errors"] == []


@needs_browser
def test_cards_show_labels_and_their_boxes(browsed):
    for card, answer in zip(browsed["cards"], browsed["looked"], strict=True):
        labels = [label["name"] for label in answer.get("labels", [])]
        assert card["labels"] == labels
        assert set(card["boxes"]) <= set(labels)
    assert any(card["boxes"] for card in browsed["cards"])


@needs_browser
def test_nobody_else_is_asked(browsed):
    others = [url for url in browsed["asked"] if not url.startswith((browsed["url"], "blob:", "data:"))]
    assert others == []
    assert browsed["state"] == "Ready: WebAssembly, one thread"


@needs_browser
def test_it_fits_a_phone_and_works_by_keyboard(browsed):
    assert not browsed["wider"]
    assert browsed["left"] == len(browsed["files"]) - 1
    assert browsed["focused"] == "Remove larger.png"


def write_video(path, pixels):
    """A camera's frames: (480, 640, 3) uint8 RGB, again and again."""
    planes = [np.asarray(plane) for plane in Image.fromarray(pixels).convert("YCbCr").split()]
    frame = b"".join([planes[0].tobytes(), *(plane[::2, ::2].tobytes() for plane in planes[1:])])
    path.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + frame) * 5)


@pytest.fixture(scope="module")
def by_way(model, page, encoded, tmp_path_factory):
    """What the page said by each way of computing, and of what a camera shows."""
    folder = tmp_path_factory.mktemp("ways")
    web = write_page(model, folder, NPM)
    (folder / "photo.jpg").write_bytes(encoded[0])
    rng = np.random.default_rng(0)
    write_video(
        folder / "camera.y4m",
        np.kron(rng.integers(0, 255, (6, 8, 3), np.uint8), np.ones((80, 80, 1), np.uint8)),
    )
    script = ROOT / "tests" / "helpers" / "browse_runtimes.mjs"
    with (
        served(web) as own,
        served(web, Isolating) as isolated,
        served(page) as cdn,
        served(page, Isolating) as isolated_cdn,
    ):
        ways = {"camera": own, "gpu": own, "isolated": isolated, "cdn": cdn, "isolated-cdn": isolated_cdn}
        words = ["node", script, NPM / "node_modules", BROWSER, folder / "camera.y4m", folder / "photo.jpg"]
        words += [f"{way}={url}" for way, url in ways.items()]
        ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


@needs_browser
def test_the_page_says_how_it_computes_and_all_ways_give_the_same(by_way):
    states = {way: answer["state"] for way, answer in by_way.items()}
    assert states.pop("gpu") in (
        "Ready: WebGPU",
        "Ready: WebGPU, and WebAssembly for the rest",
        "Ready: WebAssembly, one thread (WebGPU is slower)",
    )
    assert states == {
        "camera": "Ready: WebAssembly, one thread",
        "isolated": "Ready: WebAssembly, several threads",
        "cdn": "Ready: WebAssembly, one thread",
        "isolated-cdn": "Ready: WebAssembly, one thread",  # no worker starts from another host's script
    }
    expected = by_way["camera"]["after"]
    for answer in by_way.values():
        for name in ("probs", "global_probs", "boxes"):
            np.testing.assert_allclose(answer["before"][name], expected[name], atol=1e-3)
            np.testing.assert_allclose(answer["after"][name], expected[name], atol=1e-3)


@needs_browser
def test_a_page_without_the_runtime_loads_one_version_of_it(by_way):
    place = "https://cdn.jsdelivr.net/npm/@litertjs"
    assert [url for url in by_way["cdn"]["asked"] if not url.startswith(("http://127.0.0.1:", "blob:"))] == [
        f"{place}/core@{VERSION}/dist/index.js",
        f"{place}/wasm-utils@{VERSION}/dist/index.js",
        f"{place}/core@{VERSION}/wasm/litert_wasm_internal.js",
        f"{place}/core@{VERSION}/wasm/litert_wasm_internal.wasm",
    ]


@needs_browser
def test_the_camera_is_looked_at_kept_and_closed(by_way):
    answer = by_way["camera"]
    assert re.fullmatch(r"Nothing that it is sure of|.+\d\xa0%", answer["seen"])
    assert answer["card"]["size"] == [640, 480]
    assert re.fullmatch(r"camera .+\.png", answer["card"]["name"])
    assert set(answer["card"]["labels"]) <= set(CLASSES)
    assert not answer["live"]
    assert answer["focused"] == "open-camera"
