"""What `/openapi.json` says of the answers is what clients get."""

import base64
import operator
import threading
from functools import reduce

import pytest
from pydantic import TypeAdapter

PREDICT, CLASSIFY = "/v1/models/mcar:predict", "/v1/models/mcar:classify"


@pytest.fixture(scope="module")
def png(make_sample):
    return make_sample("test", 0).image


@pytest.fixture
def ask(make_client):
    """A function that sends a request and returns the status, once the answer is as described."""
    patient = make_client(seconds=600)  # a signature's first call takes long
    described = patient.get("/openapi.json").json()["paths"]

    def ask(method, path, client=patient, **request):
        response = client.request(method, path, **request)
        answers = described[path][method]["responses"]
        assert str(response.status_code) in answers, response.text
        ((media_type, content),) = answers[str(response.status_code)]["content"].items()
        assert response.headers["content-type"].partition(";")[0] == media_type
        if media_type == "application/json":
            type_of(content["schema"]).validate_json(response.content, strict=True)
        return response.status_code

    return ask


def type_of(schema):
    """The types in `openapi` that a schema names: validating by them is validating by the schema made of them."""
    from mcar_tf.serving import openapi

    names = [way["$ref"].rpartition("/")[2] for way in schema.get("anyOf", [schema])]
    return TypeAdapter(reduce(operator.or_, (getattr(openapi, name) for name in names)))


def instance(data):
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "path", ["/v1/models/mcar", "/v1/models/mcar/versions/1/metadata", "/healthz", "/metrics"]
)
def test_what_is_got_is_as_described(ask, make_client, path):
    assert ask("get", path) == 200
    assert ask("get", path, make_client(most_bytes=10), content=b"x" * 11) == 413


@pytest.mark.parametrize("signature", ["serving_default", "global_only", "classify"])
def test_predictions_of_every_signature_are_as_described(ask, png, signature):
    files = [instance(png), instance(b"no picture")]
    for way in ({"instances": files}, {"inputs": files}):
        assert ask("post", PREDICT, json={"signature_name": signature, **way}) == 200


def test_predictions_for_pixels_and_boxes_are_as_described(ask, png):
    pixels = {"signature_name": "serve_tensor", "instances": [[[[1, 2, 3]]]]}
    assert ask("post", PREDICT, json=pixels) == 200
    row = {"encoded": instance(png), "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]}
    for way in ({"instances": [row]}, {"inputs": {name: [value] for name, value in row.items()}}):
        assert ask("post", PREDICT, json={"signature_name": "look_at", **way}) == 200


def test_labels_and_uploads_are_as_described(ask, png):
    assert ask("post", CLASSIFY, json={"examples": [instance(png), instance(b"no picture")]}) == 200
    files = [("images", ("a.png", png)), ("images", ("notes.txt", b"text"))]
    assert ask("post", "/look", files=files) == 200
    assert ask("post", "/look", files=files[1:]) == 400


def asked(path, png):
    """A request that the model would answer."""
    bodies = {
        PREDICT: {"json": {"instances": [instance(png)]}},
        CLASSIFY: {"json": {"examples": [instance(png)]}},
        "/look": {"files": {"images": png}},
    }
    return bodies[path]


@pytest.mark.parametrize("path", [PREDICT, CLASSIFY, "/look"])
def test_every_refusal_is_as_described(ask, make_client, served, png, path):
    released = threading.Event()

    def slow(signature, inputs):
        released.wait(20)
        return served.run(signature, inputs)

    def broken(signature, inputs):
        raise KeyError

    assert ask("post", path, content=b"nothing of the kind") == 400
    assert ask("post", path, make_client(most_bytes=10), **asked(path, png)) == 413
    assert ask("post", path, make_client(most_waiting=0), **asked(path, png)) == 429
    assert ask("post", path, make_client(broken), **asked(path, png)) == 500
    assert ask("post", path, make_client(slow, seconds=0.2), **asked(path, png)) == 504
    released.set()
