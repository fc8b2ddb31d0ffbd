"""Run an exported TFLite file as a phone would: a picture or a camera in, labels and boxes out.

    python examples/phone_preview.py exported/digits/mcar-float32.tflite photo.jpg --out seen.png
    python examples/phone_preview.py exported/digits/mcar-int8.tflite --camera /dev/video0

Needs ai-edge-litert, numpy and pillow, nothing else; the camera also the program `ffmpeg` (Linux) and Python's
tkinter, which some systems pack apart (Debian: python3-tk). It is what an app
does, step by step: upright RGB, resize, one call, names for numbers.
"""

import argparse
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageOps

CAMERA_SIZE = (640, 480)  # width, height
# A region is shown as the paper shows it: its class likely in the whole picture, very likely after the second look.
SHOWN_GLOBAL, SHOWN_FUSED = 0.1, 0.6


class Model:
    """A TFLite file, ready to look at pictures."""

    def __init__(self, path: Path, signature: str = "mcar", threads: int = 2) -> None:
        self.labels = read_labels(path)
        self.runner = Interpreter(str(path), num_threads=threads).get_signature_runner(signature)
        image = self.runner.get_input_details()["image"]
        _, self.height, self.width, _ = image["shape"]
        self.dtype = image["dtype"]  # uint8, or float32 with the same range, 0 to 255

    def look(self, picture: Image.Image) -> dict[str, Any]:
        """The outputs for a picture of any size, the batch's dimension taken off."""
        # Pillow's bilinear resize averages where it makes smaller ("antialiasing"): so did training. A resize that
        # picks four neighbours, as many camera pipelines have it, costs accuracy.
        small = picture.convert("RGB").resize((self.width, self.height), Image.Resampling.BILINEAR)
        outputs = self.runner(image=np.asarray(small, self.dtype)[np.newaxis])
        return {name: value[0] for name, value in outputs.items()}

    def describe(self, outputs: dict[str, Any], threshold: float) -> list[str]:
        """Lines for people: each class above the threshold, the most probable first."""
        probs = outputs.get("probs", outputs["global_probs"])
        order = np.argsort(-probs)
        return [f"{self.labels[c]}: {probs[c]:.2f}" for c in order if probs[c] >= threshold]

    def draw(self, picture: Image.Image, outputs: dict[str, Any]) -> Image.Image:
        """The picture with its regions, `class: global / fused`."""
        drawn = picture.convert("RGB")
        pen = ImageDraw.Draw(drawn)
        for box, c in zip(outputs.get("boxes", ()), outputs.get("box_classes", ()), strict=True):
            in_global, fused = outputs["global_probs"][c], outputs["probs"][c]
            if in_global > SHOWN_GLOBAL and fused > SHOWN_FUSED:
                ymin, xmin, ymax, xmax = box * np.array([drawn.height, drawn.width] * 2)
                pen.rectangle((xmin, ymin, xmax - 1, ymax - 1), outline=(0, 220, 0), width=2)
                pen.text(
                    (xmin + 3, ymin + 2), f"{self.labels[c]}: {in_global:.2f} / {fused:.2f}", (0, 220, 0)
                )
        return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a .tflite file of an export folder")
    parser.add_argument("picture", type=Path, nargs="?", help="JPEG, PNG, ...")
    parser.add_argument("--camera", help="a video device in place of a picture, such as /dev/video0")
    parser.add_argument("--out", type=Path, help="where to draw the picture with its regions")
    parser.add_argument("--threshold", type=float, default=0.5, help="print classes from this probability on")
    parser.add_argument("--global-only", action="store_true", help="one pass, no regions: five times as fast")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    options = parser.parse_args()
    if (options.picture is None) == (options.camera is None):
        parser.error("give a picture or a --camera")
    try:
        model = Model(options.model, "global_only" if options.global_only else "mcar", options.threads)
        if options.camera:
            preview(model, options.camera)
        else:
            look_at_picture(model, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def look_at_picture(model: Model, options: argparse.Namespace) -> None:
    """Print what is in a picture file, and draw it where that is asked for."""
    if not options.picture.is_file():
        raise FileNotFoundError(f"There is no picture {options.picture}.")
    with Image.open(options.picture) as file:
        picture = ImageOps.exif_transpose(file).convert("RGB")  # as it was held
    started = time.perf_counter()
    outputs = model.look(picture)
    milliseconds = 1000 * (time.perf_counter() - started)
    lines = model.describe(outputs, options.threshold)
    print("\n".join(lines or [f"nothing from {options.threshold} on"]))
    print(f"({milliseconds:.0f} ms)", file=sys.stderr)
    if options.out:
        model.draw(picture, outputs).save(options.out)


def preview(model: Model, device: str) -> None:
    """Show the camera's picture with its regions in a window until that is closed."""
    try:
        import tkinter

        from PIL import ImageTk
    except ImportError as error:
        raise OSError(
            f"--camera needs Python's tkinter for its window (Debian: python3-tk): {error}"
        ) from None

    try:
        window = tkinter.Tk()
    except tkinter.TclError as error:  # as where there is no screen
        raise OSError(f"--camera can't open a window: {error}") from None
    window.title("mcar")
    label = tkinter.Label(window)
    label.pack()
    for frame in read_frames(camera_command(device), CAMERA_SIZE):
        image = ImageTk.PhotoImage(model.draw(frame, model.look(frame)))
        label.configure(image=image)
        try:
            window.update()
        except tkinter.TclError:  # closed
            return


def camera_command(device: str) -> list[str]:
    """What makes ffmpeg write a camera's frames to its output, as plain RGB."""
    size = "{}x{}".format(*CAMERA_SIZE)
    # Asked for a size that it hasn't, a camera gives the nearest: ffmpeg then resizes.
    source = ["-f", "v4l2", "-video_size", size, "-i", device]
    return ["ffmpeg", "-loglevel", "error", *source, "-s", size, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]


def read_frames(command: list[str], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Frames of `size` (width, height) that a program writes to its output as plain RGB."""
    width, height = size
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            while len(data := process.stdout.read(3 * width * height)) == 3 * width * height:  # type: ignore[union-attr]
                yield Image.frombytes("RGB", size, data)
        finally:
            process.terminate()


def read_labels(path: Path) -> list[str]:
    """Class names: they are inside the file, which is a zip archive too."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("labels.txt").decode().splitlines()
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} holds no labels.txt: it is not a file of `python -m mcar_tf.export`."
        ) from None


if __name__ == "__main__":
    main()
