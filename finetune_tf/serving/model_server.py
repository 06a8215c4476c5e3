"""A server of a loaded model: uvicorn, the application and the batcher, and how they stop."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from finetune_tf.errors import FinetuneError, MissingExtraError
from finetune_tf.messages import say
from finetune_tf.serving.address import BACKLOG, listen, url_of
from finetune_tf.serving.application import Application
from finetune_tf.serving.batcher import Batcher
from finetune_tf.serving.limits import Limits
from finetune_tf.serving.metrics import Metrics
from finetune_tf.serving.predictor import Predictor
from finetune_tf.serving.refusal import Refusal

_GRACE = 0.2  # seconds between the end of new connections and that of idle ones


class ModelServer:
    """Answers requests for the predictions of a model, once from `run` to `stop`.

    Args:
        model: A model from `load`.
        limits: What a request may have.
        max_batch: Rows of a batch.
        max_wait: Seconds that a request waits for others.
        max_waiting: Rows that may wait.

    Attributes:
        metrics: What is counted.

    Raises:
        MissingExtraError: If Starlette or uvicorn is not installed.
        ArgumentError: If the model does not accept the length of the limits.

    Example:
        >>> from finetune_tf.serving.address import bound
        >>> from finetune_tf.serving.model_server import ModelServer
        >>> server = ModelServer(model)
        >>> server.stop()  # in another thread, as a rule
        >>> server.run(bound("127.0.0.1", 0))
        >>> server.metrics.accepted
        0
    """

    def __init__(
        self,
        model: Any,
        limits: Limits | None = None,
        max_batch: int = 32,
        max_wait: float = 0.005,
        max_waiting: int = 256,
    ) -> None:
        uvicorn, limits = require_packages(), limits or Limits()
        self._predictor = Predictor(model, max_batch, limits.max_length)
        self.metrics = Metrics()
        self._batcher = Batcher(
            self._predictor.compute, max_batch, max_wait, max_waiting, self.metrics.batch
        )
        self._application = Application(self._predictor, self._batcher, self.metrics, limits)
        config = uvicorn.Config(
            self._application.asgi(),
            interface="asgi3",
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
        )
        self._server = _stoppable(uvicorn.Server, config, self.stop)

    def run(self, listener: socket.socket) -> None:
        """Serves until `stop`; in the main thread also until SIGTERM or Ctrl-C.

        Args:
            listener: A socket from `bound`, which is closed.

        Raises:
            ArgumentError: If another process listens there.
            KeyboardInterrupt: If a second signal ended the server before all was answered.
        """
        self._warm_up()
        with listener, self._batcher:
            listen(listener)
            say(f"Serving {self._predictor.task.name} on {url_of(listener)}")
            self._server.run([listener])
            if self._server.force_exit:
                self._batcher.discard()
        self._application.close()
        accepted, answered = self.metrics.accepted, self.metrics.answered
        say(f"Stopped: {answered:,} of {accepted:,} accepted requests are answered.")
        if self._server.force_exit:
            raise KeyboardInterrupt(self._server.signum)

    def stop(self) -> None:
        """Accepts no more connections, and lets `run` return when all requests are answered."""
        self._application.is_stopping = True
        self._server.should_exit = True

    def _warm_up(self) -> None:
        try:
            self._predictor.warm_up()
        except (FinetuneError, Refusal) as error:  # the vocabulary lacks the sample, for example
            say(f"The first request will take longer, as the model was not warmed up: {error}")


def require_packages() -> ModuleType:
    """Returns the module uvicorn.

    Raises:
        MissingExtraError: If it or Starlette is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            f"serve needs Starlette and uvicorn, and {error.name} is not installed. Install both "
            "with: pip install 'finetune-tf[serve]'"
        ) from error
    return uvicorn


def _stoppable(base: Any, config: Any, stop: Any) -> Any:
    """Returns a server of uvicorn that one signal stops in peace, and a second one at once."""

    class Server(base):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Those of uvicorn raise the signal once more when the server has stopped.
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
            before = {
                each: signal.signal(each, self.handle_exit)
                for each, handler in handlers.items()
                if handler != signal.SIG_IGN  # as under nohup
            }
            try:
                yield
            finally:
                for each, handler in before.items():
                    signal.signal(each, handler)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for server in self.servers:
                server.close()
            # Requests that connections have sent already are read before idle ones are closed.
            await asyncio.sleep(_GRACE)
            await super().shutdown(sockets)

        def handle_exit(self, signum: int, frame: Any) -> None:
            self.signum, self.force_exit = signum, self.should_exit
            stop()

    return Server(config)
