"""The web application of a served model: TensorFlow Serving's REST API, uploads, a page, health, metrics."""

import asyncio
import time
from typing import Any

import numpy as np
import prometheus_client
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from mcar_tf.exporting.pages import PAGE_HEADERS, page_files
from mcar_tf.serving import openapi
from mcar_tf.serving.batching import Batcher, QueueFullError, Tensors
from mcar_tf.serving.guard import TOO_MUCH, App, Guard, Message, Receive, Send
from mcar_tf.serving.rest import (
    RefusedError,
    format_classify,
    format_predict,
    parse_classify,
    parse_predict,
)
from mcar_tf.serving.served_model import DEFAULT_SIGNATURE, ServedModel
from pipelines.pictures import BadPicture, read_picture, reading_threads

MOST_UPLOADS = 64  # pictures in one upload
HUNG_UP = 499  # nginx' status for a client that went away before it had sent its body


def make_app(
    model: ServedModel,
    batcher: Batcher,
    name: str = "mcar",
    *,
    registry: CollectorRegistry,
    most_bytes: int = 32 * 2**20,
    seconds: float = 30,
) -> App:
    """The application for an ASGI server.

    Args:
        model: the model that answers.
        batcher: the batcher that calls it.
        name: name of the model in its URLs.
        registry: registry of the metrics, including the batcher's.
        most_bytes: the largest body of a request, in bytes.
        seconds: the longest time until an answer.
    """
    app = FastAPI(
        title=f"{model.name} behind TensorFlow Serving's REST API",
        version=model.version,
        docs_url=None,  # these pages would load scripts from another host
        redoc_url=None,
    )
    _add_errors(app)
    _add_metrics(app, registry, batcher)
    asking = _Asking(model, batcher)
    _add_tensorflow_serving(app, model, asking, f"/v1/models/{name}")
    _add_uploads(app, model, asking)
    _add_pages(app, model)
    return _Measured(Guard(app, most_bytes, seconds), registry)


class _Asking:
    """Puts a question to the batcher and awaits the answer."""

    def __init__(self, model: ServedModel, batcher: Batcher) -> None:
        self._model, self._batcher = model, batcher

    async def __call__(self, signature: str, inputs: Tensors) -> Tensors:
        try:
            answers = self._batcher.ask(signature, inputs)
        except QueueFullError:
            raise RefusedError(429, TOO_MUCH) from None
        try:
            parts = await asyncio.gather(*(asyncio.wrap_future(answer) for answer in answers))
        except (ValueError, self._model.errors) as error:  # caused by this request alone: see `Batcher`
            raise RefusedError(400, f"The model can't take that: {type(error).__name__}.") from error
        finally:
            for answer in answers:  # a client that no longer waits needs no answer
                answer.cancel()
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        headers = {"Retry-After": "1"} if error.status == 429 else {}
        return JSONResponse({"error": error.line}, error.status, headers)

    @app.exception_handler(AnyHTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=HUNG_UP)  # for the metrics: nobody receives it

    @app.exception_handler(Exception)  # it goes on to `Guard`, which reports it
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "internal error"}, 500)


class _Measured:
    """Wraps an application to count and time its answers."""

    def __init__(self, app: App, registry: CollectorRegistry) -> None:
        self._app = app
        self._answers = Counter(
            "mcar_requests", "Answers by path and status.", ["path", "status"], registry=registry
        )
        self._took = Histogram(
            "mcar_request_seconds", "From a request to its answer.", ["path"], registry=registry
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def give(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._app(scope, receive, give)
        # The route, not the path itself: clients can ask for any number of different paths.
        path = getattr(scope.get("route"), "path", "other")
        self._answers.labels(path, status).inc()
        self._took.labels(path).observe(time.perf_counter() - started)


def _add_metrics(app: FastAPI, registry: CollectorRegistry, batcher: Batcher) -> None:
    waiting = Gauge("mcar_waiting", "Pictures that wait for the model.", registry=registry)
    waiting.set_function(lambda: batcher.waiting)

    @app.get("/metrics", responses=openapi.METRICS, response_class=Response)
    def metrics() -> Response:
        text = prometheus_client.generate_latest(registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_tensorflow_serving(app: FastAPI, model: ServedModel, ask: _Asking, path: str) -> None:
    paths = (path, f"{path}/versions/{model.version}")
    state = {
        "version": model.version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }

    async def status() -> Any:
        return {"model_version_status": [state]}

    async def metadata() -> Any:
        spec = {"name": path.rpartition("/")[2], "signature_name": "", "version": model.version}
        return {"model_spec": spec, "metadata": model.metadata}

    async def predict(request: Request) -> Response:
        body = await request.body()
        asked = await asyncio.to_thread(parse_predict, body, model.inputs, DEFAULT_SIGNATURE)
        outputs = await ask(asked.signature, asked.inputs)
        return JSONResponse(await asyncio.to_thread(format_predict, asked, outputs))

    async def classify(request: Request) -> Response:
        body = await request.body()
        inputs = await asyncio.to_thread(parse_classify, body, model.inputs[DEFAULT_SIGNATURE])
        outputs = await ask(DEFAULT_SIGNATURE, inputs)
        return JSONResponse(format_classify(outputs, model.labels, model.thresholds))

    for one in paths:
        told: dict[str, Any] = {"responses": openapi.ERRORS}
        app.get(one, summary="Status", response_model=openapi.Status, **told)(status)
        app.get(f"{one}/metadata", summary="Signatures", response_model=openapi.Metadata, **told)(metadata)
        told = {"responses": openapi.MODEL_ERRORS}
        body, answer = openapi.predict_body(model), openapi.Predictions | openapi.Outputs
        app.post(f"{one}:predict", response_model=answer, openapi_extra=body, **told)(predict)
        body = openapi.CLASSIFY_BODY
        app.post(f"{one}:classify", response_model=openapi.Classes, openapi_extra=body, **told)(classify)


def _add_uploads(app: FastAPI, model: ServedModel, ask: _Asking) -> None:
    reading = reading_threads()

    async def read(upload: UploadFile) -> bytes | str:
        """The picture in a format that the model takes, or why it is not a picture."""
        content = await upload.read()
        try:
            loop = asyncio.get_running_loop()
            return (await loop.run_in_executor(reading, read_picture, content)).encoded
        except BadPicture as error:
            return str(error)

    async def receive(request: Request) -> list[tuple[str, bytes | str]]:
        """The files' names, and what was read of each."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RefusedError(400, "Send pictures as multipart/form-data, each as `images`.")
        try:
            async with request.form(max_files=MOST_UPLOADS, max_fields=MOST_UPLOADS) as form:
                parts = form.multi_items()
                uploads = [part for key, part in parts if key == "images" and isinstance(part, UploadFile)]
                if not uploads or len(uploads) < len(parts):
                    raise RefusedError(
                        400, "Each part must be a file, with a file's name, and called `images`."
                    )
                # A client chooses the encoding of names, and some can hold what no other can.
                names = [(upload.filename or "").encode(errors="replace").decode() for upload in uploads]
                return [(name, await read(upload)) for name, upload in zip(names, uploads, strict=True)]
        except UnicodeError:
            raise RefusedError(400, "The names of the parts are not in the encoding that is said.") from None

    @app.post(
        "/look",
        response_model=openapi.Look,
        responses=openapi.MODEL_ERRORS,
        openapi_extra=openapi.upload_body(MOST_UPLOADS),
    )
    async def look(request: Request) -> Response:
        started = time.perf_counter()
        uploads = await receive(request)
        contents = [content for _, content in uploads]
        pictures = [content for content in contents if isinstance(content, bytes)]
        outputs: Tensors = {}
        if pictures:
            outputs = await ask(DEFAULT_SIGNATURE, {"encoded": np.array(pictures, object)})
        rows = iter([{key: value[i] for key, value in outputs.items()} for i in range(len(pictures))])
        answers = [
            describe(model, next(rows)) if isinstance(content, bytes) else {"error": content}
            for content in contents
        ]
        if all("error" in answer for answer in answers):
            raise RefusedError(400, f"{uploads[0][0]!r:.100} {answers[0]['error']}")
        named = [{"name": name, **answer} for (name, _), answer in zip(uploads, answers, strict=True)]
        milliseconds = round(1000 * (time.perf_counter() - started), 1)
        return JSONResponse({"pictures": named, "milliseconds": milliseconds})


def describe(model: ServedModel, row: Tensors) -> dict[str, Any]:
    """A picture's outputs, and under `labels` the classes that are present, most probable first."""
    if not row["valid"]:
        return {"error": "is damaged or cut off, or takes too long to decode"}
    probs = row["probs"]
    present = [c for c in np.argsort(-probs, kind="stable") if probs[c] >= model.thresholds[c]]
    kept = {key: row[key].tolist() for key in ("probs", "global_probs", "boxes", "box_classes")}
    if not np.isfinite(np.concatenate([probs, row["global_probs"], row["boxes"].ravel()])).all():
        raise RefusedError(500, "The model's answer holds no numbers: its file is damaged.")
    return {"labels": [{"name": model.labels[c], "prob": float(probs[c])} for c in present], **kept}


def _add_pages(app: FastAPI, model: ServedModel) -> None:
    @app.get("/healthz", responses=openapi.ERRORS)
    async def health() -> openapi.Health:
        return openapi.Health(status="ok")

    settings = {
        "engine": "server",
        "name": model.name,
        "labels": list(model.labels),
        "thresholds": list(model.thresholds),
    }
    for file, (content, media_type) in page_files(settings).items():

        def give(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers=PAGE_HEADERS)

        address = "/" if file == "index.html" else f"/{file}"
        app.add_api_route(address, give, include_in_schema=False)
