"""Deferred initialization: variables that have a shape and dtype before they have a value.

A model is built with variables that take no memory. Before anything is allocated, its shapes are
compared with those of the file, and its size with the available memory. Variables that are loaded
from the file are never initialized at random first.
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
    """Defers the initialization of all variables that are created inside the `with` block.

    A variable gets its value from `initialize`, and takes no memory until then.

    Yields:
        A list that contains all of these variables at the end of the block.
    """
    created: list[keras.Variable] = []
    previous = deferred_variables()
    set_deferred_variables(created)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield created
    finally:
        set_deferred_variables(previous)


def initialize(variable: keras.Variable, value: np.ndarray | None = None) -> None:
    """Assigns the first value of a variable that was created in `shapes_only`.

    Args:
        variable: A variable without a value.
        value: An array of its shape and dtype. By default the variable's own initializer is used.
    """
    give_value(variable, value)


def require_memory(variables: Iterable[keras.Variable], model: str) -> None:
    """Checks that the weights of a model fit into the available memory.

    Args:
        variables: The variables of the model.
        model: Name of the model in the error message.

    Raises:
        CheckpointError: If the weights need more memory than is available.
    """
    sizes = {v.path: math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables}
    needed, available = sum(sizes.values()), _available_memory()
    if needed > available:
        largest = max(sizes, key=sizes.__getitem__)
        raise CheckpointError(
            f"The weights of {model} would take {needed / 1e9:,.1f} GB of memory, of which "
            f"{available / 1e9:,.1f} GB are available; the largest is {largest} with "
            f"{sizes[largest] / 1e9:,.1f} GB. Check the sizes in the config and the number of "
            "labels, or use a machine with more memory."
        )


def _available_memory() -> int:
    """Returns the bytes that this process may still allocate.

    The limit is the lowest one of the machine's free memory, the container's and ulimit's.
    """
    available = psutil.virtual_memory().available
    used = psutil.Process().memory_info()
    for name in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # the file is missing, or contains "max"
            available = min(available, int(Path(name).read_text()) - used.rss)
    with suppress(ImportError):  # Windows does not have this module
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            available = min(available, limit - used.vms)
    return max(available, 0)
