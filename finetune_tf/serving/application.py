"""The application: its routes, and what every answer has in common."""

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from finetune_tf._version import __version__
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.serving.batcher import Batcher, QueueFull, Stopped
from finetune_tf.serving.forms import forms_of, kind_of
from finetune_tf.serving.inputs import TRUNCATE, read_json, read_request
from finetune_tf.serving.limits import Limits, read_body
from finetune_tf.serving.metrics import CONTENT_TYPE, Metrics
from finetune_tf.serving.predictor import Predictor
from finetune_tf.serving.refusal import Refusal

# Encoding and describing hold Python's lock most of the time, so more threads would not help.
_THREADS = 2


class Application:
    """The routes of a server and what they share.

    Args:
        predictor: The model.
        batcher: Computes what the predictor has prepared.
        metrics: What is counted.
        limits: What a request may have.

    Attributes:
        is_stopping: Whether the server answers what it has accepted, and stops then.
    """

    def __init__(
        self, predictor: Predictor, batcher: Batcher, metrics: Metrics, limits: Limits
    ) -> None:
        self._predictor, self._batcher = predictor, batcher
        self._metrics, self._limits = metrics, limits
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="requests")
        self.is_stopping = False

    def asgi(self) -> Callable[..., Awaitable[None]]:
        """Returns the application that a server of ASGI runs."""
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect
        from starlette.routing import Route

        routes = [
            Route("/", self.describe, methods=["GET"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.show_metrics, methods=["GET"]),
        ]
        handlers = {
            HTTPException: _http_error,
            Refusal: _refused,
            ClientDisconnect: _gone,
            Exception: _failed,
        }
        application = Starlette(routes=routes, exception_handlers=handlers)
        paths = frozenset(route.path for route in routes)
        return functools.partial(self._counted, application, paths)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()

    async def describe(self, request: Any) -> Any:
        """Says what the server does: its task, labels, inputs and limits."""
        task, limits = self._predictor.task, self._limits
        columns = dict.fromkeys(name for form in forms_of(task) for name in form)
        length = limits.max_length or self._predictor.model.max_length
        return _json(
            {
                "server": f"finetune_tf {__version__}",
                "task": task.name,
                "labels": None if task.labels is None else list(task.labels),
                "predict": {
                    "method": "POST",
                    "path": "/predict",
                    "inputs": {name: f"{kind_of(name)}, or a list of them" for name in columns},
                    "together": [list(form) for form in forms_of(task)],
                    "options": [*task.options, TRUNCATE],
                },
                "limits": {
                    "body_bytes": limits.max_body_bytes,
                    "texts": limits.max_texts,
                    "characters": limits.max_characters,
                    "tokens": length,
                },
                "paths": ["/predict", "/health", "/ready", "/metrics"],
            }
        )

    async def health(self, request: Any) -> Any:
        """Says that the process answers."""
        return _json({"status": "ok"})

    async def ready(self, request: Any) -> Any:
        """Says whether requests for predictions are accepted."""
        if self.is_stopping or not self._batcher.is_running:
            return _json({"status": "stopping" if self.is_stopping else "failed"}, 503)
        return _json({"status": "ready"})

    async def show_metrics(self, request: Any) -> Any:
        """Returns the metrics in the text format of Prometheus."""
        from starlette.responses import Response

        return Response(
            self._metrics.text(self._batcher.waiting), headers={"Content-Type": CONTENT_TYPE}
        )

    async def predict(self, request: Any) -> Any:
        """Predicts for the inputs in the body."""
        start = time.monotonic()
        body = await read_body(request.stream(), request.headers, self._limits)
        asked = read_request(read_json(body), self._predictor.task, self._limits)
        try:
            self._batcher.check_room(min(len(asked), self._batcher.max_waiting))
            prepared = await self._in_thread(self._predictor.prepare, asked)
            rows = len(prepared.encoded)
            most = self._batcher.max_waiting
            if rows > most:  # a long context has many
                raise Refusal(
                    413,
                    f"The texts of a request may make {most:,} rows of tokens, found {rows:,}. "
                    "Shorten them or send fewer, or start the server with a larger --max-waiting.",
                )
            future = self._batcher.submit(prepared.encoded, rows, prepared.length, prepared.kind)
        except QueueFull as full:
            raise Refusal(
                503,
                f"The server is busy: its queue is full. Try again in {full.retry_after} s.",
                {"Retry-After": str(full.retry_after)},
            ) from None
        except Stopped:
            raise Refusal(503, "The server is stopping. Ask another one.") from None
        try:
            outputs = await asyncio.wrap_future(future)
        except (DataError, DataTypeError) as error:
            raise Refusal(400, str(error)) from None
        answer = await self._in_thread(self._predictor.describe, prepared, outputs)
        self._metrics.predicted(len(asked), time.monotonic() - start)
        return _json(answer)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _counted(
        self, application: Any, paths: frozenset[str], scope: Any, receive: Any, send: Any
    ) -> None:
        """Counts requests when they arrive and when their answer is complete."""
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in paths else "other"
        status = 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.is_stopping:  # the client must not send its next request here
                    headers = [*message.get("headers", ()), (b"connection", b"close")]
                    message = {**message, "headers": headers}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._metrics.answer(path, status)

        self._metrics.accept()
        await application(scope, receive, sending)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(
        text.encode(), status, headers={"Content-Type": "application/json", **(headers or {})}
    )


async def _refused(request: Any, error: Refusal) -> Any:
    return _json({"error": str(error)}, error.status, error.headers)


async def _http_error(request: Any, error: Any) -> Any:
    """Answers requests for other paths and methods."""
    paths = {404: "Paths are /, /predict, /health, /ready and /metrics."}
    methods = {405: "POST is for /predict, GET for the other paths."}
    advice = (paths | methods).get(error.status_code, "")
    return _json({"error": f"{error.detail}. {advice}".strip()}, error.status_code, error.headers)


async def _gone(request: Any, error: Exception) -> Any:
    """Ends a request whose client does not wait for the answer."""
    return _json({"error": "The connection was closed before the body was complete."}, 400)


async def _failed(request: Any, error: Exception) -> Any:
    """Answers a request that a defect of the server or a broken model has stopped."""
    return _json({"error": "The server failed; its log says why."}, 500)
