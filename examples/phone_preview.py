"""Run an exported TFLite file as a phone would: a picture or a camera in, labels and boxes out.

    python examples/phone_preview.py exported/digits/mcar-float32.tflite photo.jpg --out seen.png
    python examples/phone_preview.py exported/digits/mcar-int8.tflite --camera /dev/video0

Needs only ai-edge-litert, numpy and pillow. The camera (Linux) also needs the program `ffmpeg` and Python's
tkinter, which some systems package separately (Debian: python3-tk). The steps are those of an app: turn the picture
upright and into RGB, resize it, call the model once, look up the class names, and compare each class with its
threshold (from the file if `calibrate` was run, else 0.6).
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageFont, ImageOps

CAMERA_SIZE = (640, 480)  # width, height
THRESHOLD = 0.6  # the paper's, for classes without a threshold of their own
SHOWN_GLOBAL = 0.1  # show a region only if the first look saw its class too (the paper's Fig. 6)
COLORS = ((255, 213, 0), (0, 229, 255), (255, 92, 168), (118, 255, 3), (255, 145, 0), (179, 136, 255))

# Pillow would open many more formats, some of them by starting other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MOST_BYTES, MOST_MEGAPIXELS, MOST_SCANS = 100 * 2**20, 50, 300


class Model:
    """A TFLite file, ready to look at pictures.

    Attributes:
        labels: C class names.
        thresholds: C probabilities from which on a class counts as present.
    """

    def __init__(self, path: Path, signature: str = "mcar", threads: int = 2) -> None:
        content = read_checked(path)
        self.labels, self.thresholds = read_names(path)
        with quiet():
            self.runner = Interpreter(model_content=content, num_threads=threads).get_signature_runner(
                signature
            )
            image = self.runner.get_input_details()["image"]
            _, self.height, self.width, _ = image["shape"]
            self.dtype = image["dtype"]  # uint8, or float32 with the same range, 0 to 255
            self.look(Image.new("RGB", (self.width, self.height)))  # the first look also sets the runtime up

    def look(self, picture: Image.Image) -> dict[str, Any]:
        """The outputs for an RGB picture of any size, without the batch dimension."""
        # Pillow's bilinear resize averages when it shrinks a picture ("antialiasing"), as training did. A resize that
        # only reads four neighbours, as in many camera pipelines, costs accuracy.
        small = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
        outputs = self.runner(image=np.asarray(small, self.dtype)[np.newaxis])
        if not all(np.isfinite(value).all() for value in outputs.values()):
            raise ValueError("The model's answer holds no numbers: the file is damaged. Export it again.")
        return {name: value[0] for name, value in outputs.items()}

    def decide(self, outputs: dict[str, Any], threshold: float | None = None) -> list[int]:
        """The classes that are present, most probable first. `threshold` replaces each class's own threshold."""
        probs = outputs.get("probs", outputs["global_probs"])
        present = probs >= (self.thresholds if threshold is None else threshold)
        return [int(c) for c in np.argsort(-probs, kind="stable") if present[c]]

    def draw(
        self, picture: Image.Image, outputs: dict[str, Any], threshold: float | None = None
    ) -> Image.Image:
        """The picture with a frame around each region of a present class, titled `class: global / fused`.

        A present class without a region is listed in the corner.
        """
        present, frames, named = self.decide(outputs, threshold), [], set()
        for box, c in zip(outputs.get("boxes", ()), outputs.get("box_classes", ()), strict=True):
            if c in present and outputs["global_probs"][c] > SHOWN_GLOBAL:
                frames.append((box, self.title(outputs, c)))
                named.add(c)
        captions = [self.title(outputs, c) for c in present if c not in named]
        return draw_frames(picture, frames, captions)

    def title(self, outputs: dict[str, Any], c: int) -> str:
        """A class's name and its probability after the first look and after both."""
        looks = [outputs[name][c] for name in ("global_probs", "probs") if name in outputs]
        return f"{self.labels[c]:.60}: {' / '.join(f'{prob:.2f}' for prob in looks)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a .tflite file of an export folder")
    parser.add_argument("picture", type=Path, nargs="?", help="JPEG, PNG, ...")
    parser.add_argument("--camera", help="a video device in place of a picture, such as /dev/video0")
    parser.add_argument("--out", type=Path, help="where to draw the picture with its regions")
    parser.add_argument("--threshold", type=float, help="in place of each class's own")
    parser.add_argument("--global-only", action="store_true", help="one pass, no regions: five times as fast")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    options = parser.parse_args()
    if (options.picture is None) == (options.camera is None):
        parser.error("give a picture or a --camera")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # for names that can't be shown
    try:
        model = Model(options.model, "global_only" if options.global_only else "mcar", options.threads)
        if options.camera:
            preview(model, options.camera)
        else:
            look_at_picture(model, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def look_at_picture(model: Model, options: argparse.Namespace) -> None:
    """Print what is in a picture file, and draw it if that was asked for."""
    picture = read_picture(options.picture)
    started = time.perf_counter()
    outputs = model.look(picture)
    milliseconds = 1000 * (time.perf_counter() - started)
    probs = outputs.get("probs", outputs["global_probs"])
    lines = [f"{model.labels[c]}: {probs[c]:.2f}" for c in model.decide(outputs, options.threshold)]
    print("\n".join(lines or ["nothing"]))
    print(f"({milliseconds:.0f} ms)", file=sys.stderr)
    if options.out:
        model.draw(picture, outputs, options.threshold).save(options.out)


# ------------------------------------------------------------------ pictures


def read_picture(path: Path) -> Image.Image:
    """A picture file as upright RGB, with transparent parts shown on white.

    Raises:
        OSError: there is no such file, or it is not a picture.
        ValueError: the picture is too large, or would take too long to decode.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no picture {path}.")
    content = read_file(path)
    if content.count(b"\xff\xda\x00") > MOST_SCANS:
        raise ValueError(
            f"{path} is a JPEG of more than {MOST_SCANS} scans: decoding it would take too long."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large pictures and odd EXIF
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                if file.width * file.height > MOST_MEGAPIXELS * 1e6:
                    raise ValueError(f"it has {file.width} x {file.height} pixels")
                return to_rgb(ImageOps.exif_transpose(file))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be shown as a picture: {error}") from error


def read_file(path: Path) -> bytes:
    """A file's content. Anything that is not a file, or is larger than any picture, is not even opened."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{path} is not a file.")
    if state.st_size > MOST_BYTES:
        raise ValueError(f"{path} has {state.st_size / 2**20:.0f} MiB, more than {MOST_BYTES // 2**20}.")
    return path.read_bytes()


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB: of 16 bits the upper 8 are kept, and transparent parts become white."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        levels = np.clip(np.asarray(picture, np.int64), 0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white nobody knows")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return picture.convert("RGB")


def draw_frames(
    picture: Image.Image, frames: Sequence[tuple[Any, str]], captions: Sequence[str]
) -> Image.Image:
    """A copy of a picture with framed regions and their titles, and with captions in its lower left corner.

    Args:
        picture: RGB.
        frames: pairs (box, title); a box is ymin xmin ymax xmax as fractions of the picture.
        captions: lines of text.
    """
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    side = min(drawn.size)
    line, font = max(1, side // 130), ImageFont.load_default(max(10, side // 18))
    height = sum(font.getmetrics())  # type: ignore[union-attr]  # Pillow's own font, which is scalable

    def label(x: float, y: float, text: str, color: tuple[int, int, int]) -> None:
        x = max(0, min(x, drawn.width - font.getlength(text)))
        y = max(0, min(y, drawn.height - height))
        pen.rectangle((x, y, x + font.getlength(text), y + height), fill=color)
        pen.text((x, y), text, fill=(0, 0, 0), font=font)

    for i, (box, title) in enumerate(frames):
        color = COLORS[i % len(COLORS)]
        ymin, xmin, ymax, xmax = np.clip(box, 0, 1) * np.array([drawn.height, drawn.width] * 2)
        pen.rectangle((xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)), outline=color, width=line)
        label(xmin, ymin - height if ymin >= height else ymin, title, color)
    for i, caption in enumerate(reversed(captions)):
        label(0, drawn.height - (i + 1) * height, caption, (255, 255, 255))
    return drawn


# ------------------------------------------------------------------ the camera


def preview(model: Model, device: str) -> None:
    """Show the camera's picture with its regions in a window, until the window is closed."""
    try:
        import tkinter

        from PIL import ImageTk
    except ImportError as error:
        raise OSError(
            f"--camera needs Python's tkinter for its window (Debian: python3-tk): {error}"
        ) from None

    try:
        window = tkinter.Tk()
    except tkinter.TclError as error:  # for instance, there is no screen
        raise OSError(f"--camera can't open a window: {error}") from None
    window.title("mcar")
    label = tkinter.Label(window)
    label.pack()
    for frame in read_frames(camera_command(device), CAMERA_SIZE):
        image = ImageTk.PhotoImage(model.draw(frame, model.look(frame)))
        label.configure(image=image)
        try:
            window.update()
        except tkinter.TclError:  # the window was closed
            return


def camera_command(device: str) -> list[str]:
    """The ffmpeg command that writes a camera's frames to standard output as raw RGB."""
    size = "{}x{}".format(*CAMERA_SIZE)
    # A camera that doesn't have the size asked for gives the nearest one; ffmpeg then resizes.
    source = ["-f", "v4l2", "-video_size", size, "-i", device]
    return ["ffmpeg", "-loglevel", "error", *source, "-s", size, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]


def read_frames(command: list[str], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Frames of `size` (width, height) that a program writes to its output as raw RGB."""
    width, height = size
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            while len(data := process.stdout.read(3 * width * height)) == 3 * width * height:  # type: ignore[union-attr]
                yield Image.frombytes("RGB", size, data)
        finally:
            process.terminate()


# ------------------------------------------------------------------ the model's file


def read_checked(path: Path) -> bytes:
    """The content of a model file, checked against `SHA256SUMS` if that lies beside it.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not what was exported.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content, sums = path.read_bytes(), path.with_name("SHA256SUMS")
    if sums.is_file():
        lines = sums.read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = hashlib.sha256(content).hexdigest()
        if expected.get(path.name, found) != found:
            raise ValueError(f"{path} is not what was exported: its checksum differs from that in {sums}.")
    return content


def read_names(path: Path) -> tuple[list[str], Any]:
    """Class names and thresholds, (C,) each, from inside a model's file, which is also a zip archive.

    Raises:
        ValueError: the file holds none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            labels = archive.read("labels.txt").decode().removesuffix("\n").split("\n")
            own = {}
            if "thresholds.json" in archive.namelist():
                own = json.loads(archive.read("thresholds.json"))
            return labels, np.array([float(own.get(name, THRESHOLD)) for name in labels])
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError):
        raise ValueError(
            f"{path} holds no labels.txt: it is not a file of `python -m mcar_tf.export`."
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what LiteRT's C++ code prints on standard error, which no Python setting can turn off."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


if __name__ == "__main__":
    main()
