"""Variables that have a shape before they have a value.

A model is chained with variables that take no memory. Its shapes are then compared with those of
the file, and its size with the memory of the machine, before anything is allocated; and what the
file fills is never drawn at random first.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import psutil

from finetune_tf.base.keras_internals import deferred_variables, give_value, set_deferred_variables
from finetune_tf.errors import CheckpointError

_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@contextmanager
def shapes_only() -> Iterator[list[keras.Variable]]:
    """Variables that are made inside get a shape, and a value only from `initialize`.

    Yields:
        A list that holds all of them after the block. If nothing initialises them they never take
        memory, so that a model which is refused costs nothing.
    """
    made: list[keras.Variable] = []
    before = deferred_variables()
    set_deferred_variables(made)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield made
    finally:
        set_deferred_variables(before)


def initialize(variable: keras.Variable, value: np.ndarray | None = None) -> None:
    """Gives a variable of `shapes_only` its value.

    Args:
        variable: One without a value.
        value: Of its shape and dtype; by default what its own initializer draws.
    """
    give_value(variable, value)


def require_memory(variables: Iterable[keras.Variable], model: str) -> None:
    """Refuses a model that is larger than the memory that is left.

    Args:
        variables: Of the model.
        model: What to call it.

    Raises:
        CheckpointError: If the values of its variables would not fit.
    """
    sizes = {v.path: math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables}
    needed, free = sum(sizes.values()), _available_memory()
    if needed > free:
        largest = max(sizes, key=sizes.__getitem__)
        raise CheckpointError(
            f"The weights of {model} would take {needed / 1e9:,.1f} GB of memory, of which "
            f"{free / 1e9:,.1f} GB are available; the largest is {largest} with "
            f"{sizes[largest] / 1e9:,.1f} GB. Check the sizes in the config and the number of "
            "labels, or take a machine with more memory."
        )


def _available_memory() -> int:
    """Bytes that this process may still allocate: of the machine, of its container, of ulimit."""
    free = psutil.virtual_memory().available
    used = psutil.Process().memory_info()
    for name in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            free = min(free, int(Path(name).read_text()) - used.rss)
    with suppress(ImportError):  # there is no such module on Windows
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - used.vms)
    return max(free, 0)
