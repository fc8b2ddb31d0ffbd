"""Ask a server what is in pictures: TensorFlow Serving's REST API, or the same request without a server.

    python examples/serve_client.py --url http://localhost:8501/v1/models/mcar --labels exported/x/labels.txt a.jpg
    python examples/serve_client.py --saved-model exported/x/saved_model/1 a.jpg

The first form needs nothing but Python. The second needs TensorFlow, and tries a model out before it is served.
Prints one JSON object per picture: `image`, `valid`, `labels` (name -> probability), `regions` (class, probability,
box).

A class counts as present from its own threshold on if `thresholds.json` lies beside `labels.txt`, else from 0.6 on.
"""

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import queue
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SIGNATURE = "serving_default"
OUTPUTS = {"valid", "probs", "global_probs", "boxes", "box_classes", "box_probs"}
THRESHOLD = 0.6  # the paper's, for classes without a threshold of their own
MOST_BYTES = 100 * 2**20  # the most that is read of an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG or PNG files")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="of the model on the server: http://HOST:8501/v1/models/NAME")
    where.add_argument("--saved-model", type=Path, help="a version folder, .../saved_model/1")
    parser.add_argument("--labels", type=Path, help="labels.txt of the export folder (with --url)")
    parser.add_argument("--threshold", type=float, help="leave out what is less probable")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for the whole answer")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # undecodable file names
    try:
        request = make_request([path.read_bytes() for path in options.pictures])
        if options.url is not None:
            response = ask_server(options.url, request, options.timeout)
            labels = options.labels
        else:
            response = ask_saved_model(options.saved_model, request)
            labels = options.saved_model / "assets" / "labels.txt"
        predictions = read_predictions(response, len(options.pictures))
        names = read_names(labels, len(predictions[0]["probs"]))
        thresholds = find_thresholds(labels, names, options.threshold)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {one_line(str(error))}")
    for path, prediction in zip(options.pictures, predictions, strict=True):
        answer = {"image": str(path)} | describe(prediction, names, thresholds)
        print(json.dumps(answer, ensure_ascii=False))


def make_request(pictures: list[bytes]) -> dict[str, Any]:
    """The body of a predict request: the files unchanged, in base64."""
    instances = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    return {"signature_name": SIGNATURE, "instances": instances}


# ------------------------------------------------------------------ asking


def ask_server(url: str, request: dict[str, Any], timeout: float = 60) -> Any:
    """Post a request to TensorFlow Serving.

    Args:
        url: the model's URL, without `:predict`.
        request: the body.
        timeout: seconds within which the whole answer must arrive.

    Raises:
        OSError: there is no server, it refused the request, or it took too long.
        ValueError: `url` is not the URL of a model, or what answered is not such a server.
    """
    answers: queue.Queue[bytes | Exception] = queue.Queue()
    address = predict_url(url)

    def ask() -> None:
        try:
            answers.put(post(address, json.dumps(request).encode(), timeout))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    # A socket's timeout applies to each read, so a server that sends a byte now and then would never exceed it.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"{url} gave no whole answer in {timeout:g} s (--timeout).") from None
    if isinstance(answer, http.client.HTTPException):
        raise OSError(f"{url} does not speak HTTP: {answer!r:.100}")
    if isinstance(answer, Exception):
        raise answer
    if len(answer) > MOST_BYTES:
        raise ValueError(
            f"{url} answered more than {MOST_BYTES // 2**20} MiB. Send fewer pictures at a time."
        )
    return parse_json(answer, url)


def predict_url(url: str) -> str:
    """The URL to which predict requests for a model go.

    Raises:
        ValueError: `url` is not the URL of a model.
    """
    wanted = f"`--url` must be a model's, such as http://localhost:8501/v1/models/mcar. Received: {url}"
    try:
        parts = urllib.parse.urlsplit(url)
        complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:  # a port that is not a number, or a malformed IPv6 address
        raise ValueError(f"{wanted} ({error})") from None
    path = parts.path.rstrip("/").removesuffix(":predict")
    if not complete or not path or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise ValueError(wanted)
    return urllib.parse.urlunsplit(parts._replace(path=f"{path}:predict"))


def post(address: str, body: bytes, timeout: float) -> bytes:
    """The answer to a POST request, cut off after `MOST_BYTES`."""
    message = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(message, timeout=timeout) as response:
            return response.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            told = error.read(1000).decode(errors="replace")
        raise OSError(f"{address} refused the request ({error.code}): {told:.300}") from error


def parse_json(answer: bytes, url: str) -> Any:
    """Parse an answer as JSON."""
    try:
        return json.loads(answer)
    except RecursionError:
        raise ValueError(f"{url} answered JSON that is nested too deeply.") from None
    except ValueError:  # for instance, some other program listens there
        raise ValueError(f"{url} answered what is not JSON: {answer[:60]!r}") from None


def ask_saved_model(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request as TensorFlow Serving would, in this process.

    Raises:
        OSError: there is no SavedModel.
        ValueError: it was not written by `python -m mcar_tf.export`, or was changed since.
    """
    check_files(folder)
    with quiet():  # the decoder also prints about files that are not pictures
        import tensorflow as tf

        signatures = tf.saved_model.load(str(folder)).signatures
        if request["signature_name"] not in signatures:
            raise ValueError(
                f"{folder} is not a SavedModel of `python -m mcar_tf.export`: it has no {SIGNATURE}."
            )
        pictures = [base64.b64decode(instance["b64"]) for instance in request["instances"]]
        outputs = signatures[request["signature_name"]](encoded=tf.constant(pictures))
    columns = {name: value.numpy().tolist() for name, value in outputs.items()}
    return {
        "predictions": [{name: value[i] for name, value in columns.items()} for i in range(len(pictures))]
    }


def check_files(folder: Path) -> None:
    """Check that a SavedModel is what was exported, if the export folder still has its `SHA256SUMS`.

    Raises:
        ValueError: a file is missing or was changed; the message names the first one.
    """
    export = folder.resolve().parent.parent
    sums, inside = export / "SHA256SUMS", folder.resolve().relative_to(export).as_posix() + "/"
    for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []:
        expected, _, name = line.partition("  ")
        if name.startswith(inside):
            content = (export / name).read_bytes() if (export / name).is_file() else b""
            if hashlib.sha256(content).hexdigest() != expected:
                raise ValueError(
                    f"{export / name} is not what was exported: its checksum differs from that in {sums}."
                )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what TensorFlow's C++ code prints on standard error, which no Python setting can turn off."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


# ------------------------------------------------------------------ reading


def read_predictions(response: Any, pictures: int) -> list[dict[str, Any]]:
    """The rows of an answer, one per picture.

    Raises:
        ValueError: the answer did not come from an exported model.
    """
    predictions = response.get("predictions") if isinstance(response, dict) else None
    if not isinstance(predictions, list) or len(predictions) != pictures:
        noun = "picture" if pictures == 1 else "pictures"
        raise ValueError(f"The answer has no `predictions` for {pictures} {noun}: {response!r:.60}")
    classes = None
    for row in predictions:
        missing = OUTPUTS - set(row if isinstance(row, dict) else ())
        if missing:
            raise ValueError(
                f"The answer is not one of an exported model: it has no {', '.join(sorted(missing))}."
            )
        classes = len(row["probs"]) if classes is None and isinstance(row["probs"], list) else classes
        wrong = find_wrong_output(row, classes)
        if wrong:
            raise ValueError(
                f"The answer is not one of an exported model: its {wrong} is {json.dumps(row[wrong]):.60}"
            )
    return predictions


def find_wrong_output(row: dict[str, Any], classes: int | None) -> str | None:
    """The name of an output in one picture's row that no exported model would give, or None."""
    regions = len(row["box_probs"]) if isinstance(row["box_probs"], list) else None
    # For an entry that was not a picture, the model gives -1 as the class of each region.
    least = 0 if row["valid"] is True else -1
    right = {
        "valid": isinstance(row["valid"], bool),
        "probs": are_probs(row["probs"], classes) and classes != 0,
        "global_probs": are_probs(row["global_probs"], classes),
        "box_probs": are_probs(row["box_probs"], regions),
        "box_classes": is_list(row["box_classes"], regions)
        and all(type(c) is int and least <= c < (classes or 0) for c in row["box_classes"]),
        "boxes": is_list(row["boxes"], regions) and all(are_probs(box, 4) for box in row["boxes"]),
    }
    return next((name for name, is_right in right.items() if not is_right), None)


def is_list(value: Any, length: int | None) -> bool:
    """Whether a value is a list of the given length."""
    return isinstance(value, list) and len(value) == length


def are_probs(value: Any, length: int | None) -> bool:
    """Whether a value is a list of `length` numbers from 0 to 1."""
    return is_list(value, length) and all(type(x) in (int, float) and 0 <= x <= 1 for x in value)


def read_names(file: Path | None, classes: int) -> list[str]:
    """The class names, read from a file with one name per line; without a file, the class numbers.

    Raises:
        ValueError: the names do not fit the model; a wrong name is worse than none.
    """
    if file is None:
        return [str(c) for c in range(classes)]
    names = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(names) != classes:
        raise ValueError(f"{file} has {len(names)} names, the model has {classes} classes.")
    return names


def find_thresholds(labels: Path | None, names: Sequence[str], chosen: float | None) -> list[float]:
    """The probability from which on each class counts as present.

    Args:
        labels: `labels.txt`; `thresholds.json` beside it has the classes' own thresholds.
        names: C class names.
        chosen: the user's threshold for every class, or None.

    Raises:
        ValueError: `thresholds.json` is for other classes.
    """
    file = labels.with_name("thresholds.json") if labels else None
    if chosen is not None or file is None or not file.is_file():
        return [THRESHOLD if chosen is None else chosen] * len(names)
    try:
        own = json.loads(file.read_text(encoding="utf-8"))
        thresholds = [own[name] for name in names]
    except (ValueError, KeyError, TypeError, RecursionError):
        thresholds = []
    if not are_probs(thresholds, len(names)):
        raise ValueError(f"{file} does not hold a threshold from 0 to 1 for each name of {labels}.")
    return thresholds


def describe(prediction: dict[str, Any], names: Sequence[str], thresholds: Sequence[float]) -> dict[str, Any]:
    """One picture's outputs with class names, most probable first: what is present, and where it was seen."""
    if not prediction["valid"]:
        return {"valid": False, "labels": {}, "regions": []}
    probs = prediction["probs"]
    present = sorted((c for c, prob in enumerate(probs) if prob >= thresholds[c]), key=lambda c: -probs[c])
    regions = zip(prediction["box_classes"], prediction["box_probs"], prediction["boxes"], strict=True)
    return {
        "valid": True,
        "labels": {names[c]: round(probs[c], 4) for c in present},
        "regions": [
            {"class": names[c], "prob": round(prob, 4), "box": [round(side, 4) for side in box]}
            # A region is worth showing where the first look saw its class too (the paper's Fig. 6).
            for c, prob, box in regions
            if c in present and prediction["global_probs"][c] > 0.1
        ],
    }


def one_line(text: str) -> str:
    """A text without line breaks and without characters that could control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


if __name__ == "__main__":
    main()
