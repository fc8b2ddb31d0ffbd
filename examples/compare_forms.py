"""Ask every form of one model what is in the same picture files, and tell how far each is from the model.

    python examples/compare_forms.py --run runs/x --export exported/x photos/*.jpg
    python examples/compare_forms.py --run runs/x --export exported/x --npm LITERT --url URL photos/*.jpg

The forms are those in the export folder. ONNX runs in onnxruntime and OpenVINO, whichever is installed; `--npm` names
the folder of `npm install @litertjs/core playwright-core`, and the exported page is then asked in Chromium; `--url`
names a running `mcar_tf.serve` or TensorFlow Serving of the same export.

Files are given to the SavedModel, the page and the server, which decode and resize them by themselves. TFLite and
ONNX get the pixels that the model gets. Needs mcar_tf.
"""

import argparse
import base64
import contextlib
import functools
import http.server
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Outputs = dict[str, Any]  # name -> (P, ...) array
AT_ONCE = 10  # pictures in a request

BROWSE = """
const [modules, chromium, url, ...files] = process.argv.slice(1);
const require = (await import("node:module")).createRequire(modules + "/here.js");
const { readFileSync } = await import("node:fs");
const { chromium: browsers } = require("playwright-core");
const browser = await browsers.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(url);
await page.evaluate(() => window.mcar.ready);
const answers = [];
for (const file of files) {
  answers.push(await page.evaluate(async (content) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    return window.mcar.look(new Blob([bytes]));
  }, readFileSync(file).toString("base64")));
}
console.log(JSON.stringify(answers));
await browser.close();
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG, PNG or WebP files")
    parser.add_argument("--run", type=Path, required=True, help="the run folder")
    parser.add_argument("--export", type=Path, required=True, help="an export folder of that run")
    parser.add_argument("--npm", type=Path, help="where npm installed @litertjs/core and playwright-core")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (with --npm)")
    parser.add_argument("--url", help="of a server: http://HOST:8501/v1/models/NAME")
    options = parser.parse_args()

    from pipelines.command import load_tensorflow

    load_tensorflow()
    from mcar_tf.exporting.parity import full_float32

    with full_float32():
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Ask each form that can be asked here, and print how its answers differ from the run's."""
    from mcar_tf.evaluating.photos import read_pixels
    from mcar_tf.runs.loading import load_run

    run = load_run(options.run)
    thresholds = np.array(run.decision.values)
    batch = {
        "image": np.stack([read_pixels(path, run.config.image_size) for path in options.pictures]),
        "encoded": np.array([path.read_bytes() for path in options.pictures], object),
    }
    expected = {name: value.numpy() for name, value in run.model(batch["image"], training=False).items()}
    present = expected["probs"] >= thresholds
    print(f"{len(present)} pictures, {present.sum()} labels; thresholds: {run.decision.said}")
    print(f"{'':20}{'labels':>9}{'boxes':>9}{'largest difference of':>32}")
    print(f"{'':20}{'equal':>9}{'equal':>9}{'global_probs':>16}{'probs':>16}")
    for name, ask in ways(options, batch):
        answer = ask()
        labels = ((answer["probs"] >= thresholds) == present).all(axis=1).mean()
        boxes = same_boxes(answer, expected, 0.5 / run.config.image_size)
        differences = (abs(answer[key] - expected[key]).max() for key in ("global_probs", "probs"))
        print(
            f"{name:20}{labels:>9.0%}{boxes:>9.1%}" + "".join(f"{d:>16.1e}" for d in differences), flush=True
        )


def ways(options: argparse.Namespace, batch: Outputs) -> Iterator[tuple[str, Callable[[], Outputs]]]:
    """Name of each form that can be asked here, and a function that gives its outputs."""
    from mcar_tf.exporting.forms import FORMS

    for form in FORMS:
        path = options.export / form.path
        if form.format != "web" and path.exists() and all(map(importlib.util.find_spec, form.needs)):
            yield (
                form.name,
                functools.partial(
                    lambda form, path: form.load_module().load_form(path).answer(batch), form, path
                ),
            )
    onnx = options.export / "mcar.onnx"
    if onnx.exists() and importlib.util.find_spec("openvino"):
        yield "mcar.onnx, OpenVINO", lambda: ask_openvino(onnx, batch["image"])
    if options.npm:
        yield "web, in a browser", lambda: ask_browser(options)
    if options.url:
        yield "server", lambda: ask_server(options.url, list(batch["encoded"]))


def same_boxes(one: Outputs, other: Outputs, tolerance: float) -> float:
    """Share of the regions that have the same class and box."""
    if not other["box_classes"].size:
        return 1.0
    same = (abs(one["boxes"] - other["boxes"]) <= tolerance).all(axis=2)
    return float((same & (one["box_classes"] == other["box_classes"])).mean())


def ask_openvino(path: Path, images: Any) -> Outputs:
    import openvino

    # Processors with bfloat16 would else compute in that.
    model = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = [model(image[np.newaxis]) for image in images]
    return {port.any_name: np.concatenate([row[port] for row in rows]) for port in model.outputs}


def ask_browser(options: argparse.Namespace) -> Outputs:
    with serving(options.export / "web") as url:
        words = ["node", "--input-type=module", "-e", BROWSE, options.npm.resolve() / "node_modules"]
        words += [options.chromium, url, *options.pictures]
        ran = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"error: the browser gave no answer: {ran.stderr.strip().splitlines()[-1:]}")
    return columns(json.loads(ran.stdout))


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A static server of a folder; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def ask_server(url: str, files: list[bytes]) -> Outputs:
    rows: list[Outputs] = []
    for start in range(0, len(files), AT_ONCE):
        instances = [{"b64": base64.b64encode(file).decode()} for file in files[start : start + AT_ONCE]]
        body = json.dumps({"signature_name": "serving_default", "instances": instances}).encode()
        request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as response:
            rows += json.load(response)["predictions"]
    return columns(rows)


def columns(rows: list[Outputs]) -> Outputs:
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "labels"}


if __name__ == "__main__":
    main()
