"""What a client gets: TensorFlow Serving's answers, uploads, and one line for whatever is wrong."""

import base64
import json
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
PREDICT = "/v1/models/mcar:predict"


@pytest.fixture(scope="module")
def pngs(make_sample):
    return [make_sample("test", i).image for i in range(4)]


def instance(data):
    return {"b64": base64.b64encode(data).decode()}


def test_the_example_client_needs_no_change(client, served, pngs):
    import serve_client

    response = client.post(PREDICT, json=serve_client.make_request([*pngs, b"no picture"]))
    assert response.status_code == 200
    predictions = serve_client.read_predictions(response.json(), 5)
    assert [row["valid"] for row in predictions] == [True] * 4 + [False]
    expected = served.run("serving_default", {"encoded": np.array(pngs, object)})
    np.testing.assert_allclose([row["probs"] for row in predictions[:4]], expected["probs"], atol=1e-6)
    assert predictions[4]["probs"] == [0] * 4


def test_columns_in_give_columns_out(client, pngs):
    rows = client.post(PREDICT, json={"instances": [{"encoded": instance(png)} for png in pngs]}).json()
    for inputs in ([instance(png) for png in pngs], {"encoded": [instance(png) for png in pngs]}):
        columns = client.post(PREDICT, json={"inputs": inputs}).json()["outputs"]
        assert columns["probs"] == [row["probs"] for row in rows["predictions"]]


def test_pixels_and_the_other_signatures_answer_too(client, served):
    pixels = np.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3) % 256
    body = {"signature_name": "serve_tensor", "instances": pixels.tolist()}
    answer = client.post(PREDICT, json=body).json()["predictions"]
    expected = served.run("serve_tensor", {"images": pixels.astype(np.uint8)})
    np.testing.assert_allclose([row["probs"] for row in answer], expected["probs"], atol=1e-6)


def test_status_and_metadata_are_those_of_tensorflow_serving(client):
    for path in ("/v1/models/mcar", "/v1/models/mcar/versions/1"):
        (state,) = client.get(path).json()["model_version_status"]
        assert (state["version"], state["state"], state["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
        told = client.get(f"{path}/metadata").json()
        assert told["model_spec"] == {"name": "mcar", "signature_name": "", "version": "1"}
        signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["encoded"]["dtype"] == "DT_STRING"
        assert signature["method_name"] == "tensorflow/serving/predict"
    assert client.get("/v1/models/other").status_code == 404


def test_classify_names_what_reaches_its_own_threshold(client, served, pngs):
    body = {"examples": [{"encoded": instance(data)} for data in (pngs[0], b"no picture")]}
    answer = client.post("/v1/models/mcar:classify", json=body).json()
    probs = served.run("serving_default", {"encoded": np.array(pngs[:1], object)})["probs"][0]
    expected = sorted(zip(served.labels, probs.tolist(), strict=True), key=lambda pair: -pair[1])
    assert [label for label, _ in answer["results"][0]] == [label for label, _ in expected]
    own = dict(zip(served.labels, (0.7, 0.1, 0.2, 0.9), strict=True))
    present = [label for label, prob in expected if prob >= own[label]]
    assert 0 < len(present) < 4
    assert answer["present"] == [present, []]
    assert answer["results"][1] == []


def test_an_upload_has_labels_and_boxes_and_says_what_is_no_picture(client, pngs):
    files = [
        ("images", ("a.png", pngs[0])),
        ("images", ("notes.txt", b"text")),
        ("images", ("b.png", pngs[1])),
    ]
    first, bad, second = client.post("/look", files=files).json()["pictures"]
    assert bad == {"name": "notes.txt", "error": "is not a picture in a known format"}
    for name, picture in (("a.png", first), ("b.png", second)):
        assert picture["name"] == name
        own = (0.7, 0.1, 0.2, 0.9)
        assert len(picture["labels"]) == sum(p >= t for p, t in zip(picture["probs"], own, strict=True))
        assert np.shape(picture["boxes"]) == (2, 4)
    alone = client.post("/look", files=[("images", ("notes.txt", b"text"))])
    assert alone.status_code == 400
    assert alone.json() == {"error": "'notes.txt' is not a picture in a known format"}


def deep(text):
    return text.encode() * 100_000


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (deep("["), "not JSON"),
        (b"[]", "a JSON object"),
        (b"{}", "either `instances` or `inputs`"),
        (b'{"instances": [1], "inputs": [1]}', "either `instances` or `inputs`"),
        (b'{"instances": []}', "at least one"),
        (b'{"instances": {}}', "at least one"),
        (b'{"inputs": {"other": []}}', "must be encoded"),
        (b'{"instances": ["text"]}', "in base64"),
        (b'{"instances": [{"b64": "?"}]}', "not base64"),
        (b'{"signature_name": "x", "instances": [1]}', "`signature_name` must be one of"),
        (b'{"signature_name": {}, "instances": [1]}', "must be one of"),
        (b'{"signature_name": "serve_tensor", "instances": [[[[1, 2, 256]]]]}', r"in \[0, 255\]"),
        (b'{"signature_name": "serve_tensor", "instances": [[[1, 2, 3]]]}', "uint8 of the shape"),
        (b'{"signature_name": "serve_tensor", "instances": [[[[1, 2, 3]]], [[[1]]]]}', "one length"),
        (b'{"signature_name": "serve_tensor", "instances": [[]]}', "uint8 of the shape"),
    ],
)
def test_what_is_no_request_gets_one_line(client, body, line):
    response = client.post(PREDICT, content=body)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error"}
    assert re.search(line, response.json()["error"])
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"no multipart", b"--x\r\nbroken", b"--x--\r\n"])
def test_what_is_no_upload_gets_one_line(client, body):
    for headers in (
        {},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "multipart/form-data"},
    ):
        response = client.post("/look", content=body, headers=headers)
        assert response.status_code == 400
        assert set(response.json()) == {"error"}


def test_a_body_that_is_too_large_is_413_whether_it_says_so_or_not(make_client):
    client = make_client(most_bytes=1000)
    assert client.post(PREDICT, content=b"x" * 1001).status_code == 413
    unsaid = client.post(PREDICT, content=(b"x" * 100 for _ in range(11)))
    assert unsaid.status_code == 413
    assert unsaid.json() == {"error": "The body has more than 0.000953674 MiB."}
    assert client.post(PREDICT, content=b"x" * 1000).status_code == 400


class Held:
    """A model that answers when it is told to."""

    def __init__(self, run):
        self.run, self.begun, self.goes_on = run, threading.Event(), threading.Event()

    def __call__(self, *question):
        self.begun.set()
        assert self.goes_on.wait(20)
        return self.run(*question)


def test_more_than_may_wait_is_429_and_those_who_wait_are_answered(make_client, served, pngs):
    held = Held(served.run)
    client = make_client(held, most_waiting=1)
    statuses = []
    request = {"instances": [instance(pngs[0])]}
    waiting = [
        threading.Thread(target=lambda: statuses.append(client.post(PREDICT, json=request).status_code))
    ]
    waiting[0].start()
    assert held.begun.wait(20)
    response = client.post(PREDICT, json={"instances": [instance(png) for png in pngs[:2]]})
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    held.goes_on.set()
    waiting[0].join(20)
    assert statuses == [200]


def test_an_answer_that_takes_too_long_is_504(make_client, served, pngs):
    held = Held(served.run)
    client = make_client(held, seconds=0.3)
    response = client.post(PREDICT, json={"instances": [instance(pngs[0])]})
    assert (response.status_code, response.json()) == (
        504,
        {"error": "There was no answer within 0.3 seconds."},
    )
    held.goes_on.set()


def test_what_breaks_inside_is_500_without_a_word_of_it(make_client, pngs, capsys):
    def broken(signature, inputs):
        raise KeyError("secret")

    client = make_client(broken)
    response = client.post(PREDICT, json={"instances": [instance(pngs[0])]})
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert "internal error: KeyError: 'secret'" in capsys.readouterr().err


def test_numbers_that_are_none_are_no_answer(make_client, served, pngs):
    def damaged(signature, inputs):
        return {
            name: value * np.float32("nan")
            for name, value in served.run(signature, inputs).items()
            if value.dtype.kind == "f"
        }

    response = make_client(damaged).post(PREDICT, json={"instances": [instance(pngs[0])]})
    assert (response.status_code, "holds no numbers" in response.json()["error"]) == (500, True)


def test_metrics_count_by_route_and_never_by_what_anybody_asks_for(client, pngs):
    client.post(PREDICT, json={"instances": [instance(pngs[0])]})
    for i in range(3):
        client.get(f"/nothing/{i}")
    text = client.get("/metrics").text
    assert 'mcar_requests_total{path="/v1/models/mcar:predict",status="200"} 1.0' in text
    assert 'mcar_requests_total{path="other",status="404"} 3.0' in text
    assert "nothing" not in text


def test_the_page_asks_no_other_host(client, served):
    page = client.get("/")
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("page.css", "page.js", "picture.js", "server.js", "icon.svg", "settings.json"):
        assert client.get(f"/{name}").status_code == 200, name
    assert "connect-src 'self';" in page.text
    assert "cdn" not in page.text
    settings = json.loads(client.get("/settings.json").content)
    assert (settings["engine"], settings["thresholds"]) == ("server", [0.7, 0.1, 0.2, 0.9])
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/litert.js").status_code == 404


def test_openapi_can_be_read(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {PREDICT, "/v1/models/mcar:classify", "/look", "/healthz", "/metrics"} <= set(paths)


def test_a_body_that_is_too_large_at_its_end_is_answered_at_once(make_client):
    started = time.monotonic()
    response = make_client(most_bytes=1000).post(PREDICT, content=(b"x" * 600 for _ in range(2)))
    assert response.status_code == 413
    assert time.monotonic() - started < 3  # not after the five seconds that the rest of a body may take


def form(name, encoding="utf-8", picture=b"text", boundary=b"x"):
    """A form with one file, and its content type."""
    head = b'Content-Disposition: form-data; name="images"; filename="' + name + b'"'
    body = b"\r\n".join([b"--" + boundary, head, b"", picture, b"--" + boundary + b"--", b""])
    return {
        "content": body,
        "headers": {"Content-Type": f"Multipart/Form-Data; charset={encoding}; boundary=x"},
    }


def test_files_may_have_any_name(client, pngs):
    name = "Tür 文 <b>\u202e'.png"
    picture = client.post("/look", **form(name.encode(), picture=pngs[0])).json()["pictures"][0]
    assert picture["name"] == name
    lone = client.post("/look", **form(rb"\ud800.png", "unicode_escape", picture=pngs[0])).json()["pictures"][
        0
    ]
    assert lone["name"] == "?.png"
    assert (
        client.post("/look", **form("\u202e.png".encode())).json()["error"].startswith("'\\u202e.png' is not")
    )


@pytest.mark.parametrize("encoding", ["undefined", "idna", "rot13", "utf-16", "none-such"])
def test_encodings_that_names_are_not_in_get_an_answer(client, encoding):
    response = client.post("/look", **form(b"\xff.png", encoding))
    assert (response.status_code, set(response.json())) == (400, {"error"})


def test_class_names_may_be_html(client, pngs):
    labels = client.post("/look", files={"images": pngs[0]}).json()["pictures"][0]["labels"]
    settings = client.get("/settings.json").json()
    assert "<b>rare & odd</b>" in settings["labels"]
    assert "<b>" not in client.get("/").text
    assert {label["name"] for label in labels} <= set(settings["labels"])


@pytest.mark.parametrize("path", ["/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.css/", "/page.js%00"])
def test_paths_lead_nowhere_but_to_the_page(client, path):
    assert client.get(path, follow_redirects=False).status_code in (307, 404)


@pytest.mark.parametrize(
    "parts",
    [
        {"files": {"image": b"x"}},
        {"files": {"images": (None, b"x")}},  # a field, not a file
        {"files": {"images": b"x"}, "data": {"more": "x"}},
    ],
)
def test_parts_that_are_no_pictures_are_said(client, parts):
    response = client.post("/look", **parts)
    assert response.status_code == 400
    assert response.json() == {"error": "Each part must be a file, with a file's name, and called `images`."}
