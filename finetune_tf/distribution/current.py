"""The distribution that is in force, and what models and files ask of it.

Nothing here imports an engine: without a distribution, every function returns at once.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

# How JAX's errors of collective operations begin, by the libraries that communicate.
_LOST = re.compile(r"gloo|nccl|heartbeat|UNAVAILABLE|connection (closed|reset)", re.IGNORECASE)


@dataclass(frozen=True)
class Distribution:
    """The devices and processes on which models are trained; made by `ft.distribute`.

    It stays in force until `end()`, or until the end of a `with` block.

    Attributes:
        kind: "data", "model", or "none" for one device.
        devices: The names of all devices, of all processes.
        num_processes: The number of processes.
        process_id: The number of this process, from 0.
        engine: What places values on the devices.

    Example:
        >>> with ft.distribute("auto") as distribution:
        ...     len(distribution.devices), distribution.is_first
        (1, True)
    """

    kind: str
    devices: tuple[str, ...]
    num_processes: int = 1
    process_id: int = 0
    engine: Any = field(default=None, repr=False, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.process_id == 0

    def end(self) -> None:
        """Ends the distribution: models that are loaded later are on one device again."""
        if current() is self:
            if self.engine is not None:
                self.engine.end()
                _ENDED.append(self.engine)
            _put(None)

    def __enter__(self) -> "Distribution":
        """Returns the distribution."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends the distribution."""
        self.end()


_IN_FORCE: list[Distribution] = []
_ENDED: list[Any] = []  # the engines of distributions that have ended


def current() -> Distribution | None:
    """Returns the distribution in force; None if there is none.

    Example:
        >>> from finetune_tf.distribution import current
        >>> current() is None
        True
    """
    return _IN_FORCE[0] if _IN_FORCE else None


def _put(distribution: Distribution | None) -> None:
    _IN_FORCE[:] = [] if distribution is None else [distribution]


def _engine() -> Any:
    distribution = current()
    return None if distribution is None else distribution.engine


def divided(inputs: Any) -> Any:
    """Divides the rows of a model's inputs among the devices, inside of a compiled step.

    Args:
        inputs: A nested structure of tensors (rows, …).

    Returns:
        The same values. Tensors whose rows the devices do not divide stay whole, so that each
        device computes all of them.
    """
    engine = _engine()
    return inputs if engine is None else engine.divided(inputs)


def shares() -> Any:
    """Returns how several processes share the reading of batches.

    Returns:
        A `jax_shares.Shares`; None where each process reads whole batches, as a single one does.
    """
    engine = _engine()
    return None if engine is None else engine.shares


def several_processes() -> bool:
    """Whether the distribution in force has several processes."""
    distribution = current()
    return distribution is not None and distribution.num_processes > 1


def is_first() -> bool:
    """Whether this process is the one that writes files: the only one, or the first of several."""
    distribution = current()
    return distribution is None or distribution.is_first


def wait_for_all(place: str) -> None:
    """Waits until all processes have come to a place.

    Args:
        place: A name for it, the same in all processes.
    """
    if several_processes():
        _engine().wait_for_all(place)


def is_same_for_all(text: str) -> bool:
    """Waits for all processes, and returns whether they have given the same text.

    Args:
        text: What they have to agree on.
    """
    return not several_processes() or _engine().is_same_for_all(text)


@contextlib.contextmanager
def written_once(path: str | Path) -> Iterator[Path]:
    """Lets one of several processes write files, and the others do the same work without a result.

    All of them have to do the same, because weights on several devices can only be read, converted
    and summed by all processes together.

    Args:
        path: Where the files are wanted.

    Yields:
        The path in process 0, and a temporary one in the others; at the end, all have written.
    """
    if is_first():
        try:
            yield Path(path)
        finally:
            wait_for_all("written")
        return
    with tempfile.TemporaryDirectory() as folder, quiet():
        yield Path(folder) / Path(path).name
    wait_for_all("written")


def gathered(outputs: Any) -> Any:
    """Copies the outputs of a compiled step to all devices, so that each process can read them."""
    engine = _engine()
    return outputs if engine is None else engine.gathered(outputs)


def check_place(model: keras.Model) -> None:
    """Checks that the weights of a model are on the devices of the distribution in force.

    Args:
        model: The model, whose variables have values.

    Raises:
        ModelError: If the model was loaded before the distribution began, or has outlived its own.
    """
    engine = _engine()
    if engine is not None and not engine.holds(model):
        raise ModelError(
            "The model was loaded before ft.distribute, so that its weights are on other devices. "
            "Call ft.distribute first, then ft.load."
        )
    if engine is None and any(ended.holds(model) for ended in _ENDED):
        raise ModelError(
            "The distribution that the model was loaded in has ended. Call ft.distribute again and "
            "load the model anew, or end the distribution later."
        )


@contextlib.contextmanager
def running(model: keras.Model) -> Iterator[None]:
    """Gives whole batches to a model that divides them itself, see `divided`.

    Args:
        model: As for `check_place`, which is called.

    Raises:
        ModelError: As `check_place` does, or if another process was lost.
    """
    check_place(model)
    engine = _engine()
    if engine is None:
        yield
        return
    with engine.whole_batches(), _explaining(current()):
        yield


@contextlib.contextmanager
def _explaining(distribution: Distribution) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if distribution.num_processes == 1 or not _LOST.search(str(error)):
            raise
        raise ModelError(
            f"Process {distribution.process_id} cannot go on, because another process of the job "
            "was lost or has failed; its own output says why. Start all of them again: "
            "ft.callbacks.Resume continues from the last save."
        ) from error
