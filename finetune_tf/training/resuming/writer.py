"""Writes saves in another thread, so that training waits for nothing but the collected state."""

import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_tf.errors import CheckpointError
from finetune_tf.messages import say
from finetune_tf.training.resuming.files import NotFiniteError, Stored
from finetune_tf.training.resuming.saves import Saves
from finetune_tf.training.resuming.state import ModelState


class Writer:
    """Writes one save after the other.

    Args:
        saves: The saves of the fit.
        model_state: Knows the frozen variables, which are left out.
        how: How to load the weights of the last save, for messages.

    Attributes:
        last: The path of the last save; None before the first one.
    """

    def __init__(self, saves: Saves, model_state: ModelState, how: str) -> None:
        self._saves, self._model_state, self._how = saves, model_state, how
        self.last: Path | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, collected: tuple[tuple[int, int], dict[str, Any], dict[str, Stored]]) -> None:
        """Begins to write a save, once the one before is written.

        Args:
            collected: The epoch and the step, what JSON can hold, and the arrays.
        """
        self.wait()
        without_frozen = self._model_state.without_frozen
        finish = self._explaining(lambda: self._saves.begin(*collected, without_frozen))
        if finish is None:
            self.wait()  # raises the error before the next step, if there is one
            return
        context = contextvars.copy_context()  # `messages.quiet()` counts there as well
        self._thread = threading.Thread(target=context.run, args=(self._finish, finish))
        self._thread.start()

    def wait(self) -> None:
        """Waits until the save is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def describe_last(self) -> str:
        """Says where the last save is and how to use it."""
        self.wait()
        return self._describe()

    def _describe(self) -> str:
        if self.last is None:
            return "There is no save yet."
        return f"The last save is {self.last}; {self._how} loads its weights."

    def _finish(self, finish: Callable[[], Path]) -> None:
        self.last = self._explaining(finish) or self.last

    def _explaining(self, write: Callable[[], Any]) -> Any:
        """Returns the result of a function, or None after an error."""
        try:
            return write()
        except NotFiniteError:
            say(f"The weights are NaN or infinite and are not saved. {self._describe()}")
        except CheckpointError as error:
            say(f"{error} Training continues. {self._describe()}")
        except Exception as error:  # is raised by the thread that trains
            self._error = error
        return None
