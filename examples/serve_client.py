"""Ask a server what is in pictures: TensorFlow Serving's REST API, or the same request without a server.

    python examples/serve_client.py --url http://localhost:8501/v1/models/mcar photo.jpg
    python examples/serve_client.py --saved-model exported/digits/saved_model/1 photo.jpg

The first form needs Python alone, the second TensorFlow: it is for trying a model out before it is served. Prints a
JSON object a picture: `image`, `valid`, `labels` (name -> probability), `regions` (class, probability, box).
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SIGNATURE = "serving_default"
OUTPUTS = {"valid", "probs", "boxes", "box_classes", "box_probs"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG or PNG files")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="of the model on the server: http://HOST:8501/v1/models/NAME")
    where.add_argument("--saved-model", type=Path, help="a version folder, .../saved_model/1")
    parser.add_argument("--labels", type=Path, help="labels.txt of the export folder (with --url)")
    parser.add_argument("--threshold", type=float, default=0.5, help="leave out what is less probable")
    options = parser.parse_args()
    try:
        request = make_request([path.read_bytes() for path in options.pictures])
        if options.url:
            response = ask_server(options.url, request)
            labels = options.labels
        else:
            response = ask_saved_model(options.saved_model, request)
            labels = options.saved_model / "assets" / "labels.txt"
        names = labels.read_text(encoding="utf-8").splitlines() if labels else None
        predictions = read_predictions(response, len(options.pictures))
        if names is not None:
            check_names(names, predictions, labels)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for path, prediction in zip(options.pictures, predictions, strict=True):
        print(
            json.dumps(
                {"image": str(path)} | describe(prediction, names, options.threshold), ensure_ascii=False
            )
        )


def make_request(pictures: list[bytes]) -> dict[str, Any]:
    """The body of a predict request: files as they are, in base64."""
    instances = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    return {"signature_name": SIGNATURE, "instances": instances}


def ask_server(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """Post a request to TensorFlow Serving.

    Raises:
        OSError: there is no server, or it refused the request.
        ValueError: what answered is no such server.
    """
    message = urllib.request.Request(
        f"{url}:predict", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(message, timeout=60) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} refused the request: {error.read().decode(errors='replace')[:300]}") from error
    try:
        return json.loads(answer)
    except ValueError:  # as when something else listens there
        raise ValueError(f"{url} answered what is not JSON: {answer[:60]!r}") from None


def ask_saved_model(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What TensorFlow Serving does with a request, in this process."""
    import tensorflow as tf

    pictures = [base64.b64decode(instance["b64"]) for instance in request["instances"]]
    signature = tf.saved_model.load(str(folder)).signatures[request["signature_name"]]
    outputs = {
        name: value.numpy().tolist() for name, value in signature(encoded=tf.constant(pictures)).items()
    }
    return {
        "predictions": [{name: value[i] for name, value in outputs.items()} for i in range(len(pictures))]
    }


def read_predictions(response: Any, pictures: int) -> list[dict[str, Any]]:
    """The rows of an answer, one a picture."""
    predictions = response.get("predictions") if isinstance(response, dict) else None
    if not isinstance(predictions, list) or len(predictions) != pictures:
        raise ValueError(
            f"The answer has no `predictions` for {pictures} pictures: {json.dumps(response)[:60]}"
        )
    missing = OUTPUTS - set(predictions[0] if isinstance(predictions[0], dict) else ())
    if missing:
        raise ValueError(
            f"The answer is not one of an exported model: it has no {', '.join(sorted(missing))}."
        )
    return predictions


def check_names(names: list[str], predictions: list[dict[str, Any]], file: Path) -> None:
    """Refuse names that are not the model's: a wrong name is worse than none."""
    classes = len(predictions[0]["probs"])
    if len(names) != classes:
        raise ValueError(f"{file} has {len(names)} names, the model has {classes} classes.")


def describe(prediction: dict[str, Any], names: list[str] | None, threshold: float) -> dict[str, Any]:
    """One picture's outputs with names for numbers; without names, the class's number."""

    def name(c: int) -> str:
        return names[c] if names else str(c)

    if not prediction["valid"]:
        return {"valid": False, "labels": {}, "regions": []}
    probs = prediction["probs"]
    order = sorted(range(len(probs)), key=lambda c: -probs[c])
    regions = zip(prediction["box_classes"], prediction["box_probs"], prediction["boxes"], strict=True)
    return {
        "valid": True,
        "labels": {name(c): round(probs[c], 4) for c in order if probs[c] >= threshold},
        "regions": [
            {"class": name(c), "prob": round(prob, 4), "box": [round(side, 4) for side in box]}
            for c, prob, box in regions
            if prob >= threshold
        ],
    }


if __name__ == "__main__":
    main()
