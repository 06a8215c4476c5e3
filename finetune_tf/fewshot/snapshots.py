"""Values of variables, kept to start again from them without building or tracing anything."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops


class Snapshot:
    """The values of variables at one time.

    Args:
        variables: Variables of a model or an optimizer.

    Example:
        >>> from finetune_tf.fewshot.snapshots import Snapshot
        >>> before = Snapshot(model.variables)
        >>> _ = model.fit(train.batches(model, 4), verbose=0)
        >>> before.restore()
    """

    def __init__(self, variables: Iterable[Any]) -> None:
        self._variables = list(variables)
        self._values: list[np.ndarray | None] = []
        self.update()

    def update(self) -> None:
        """Replaces the values by those of now."""
        # Moments of optimizers begin as zeros, which need not be stored.
        values = (np.array(ops.convert_to_numpy(v.value)) for v in self._variables)
        self._values = [value if value.any() else None for value in values]

    def restore(self) -> None:
        """Gives the variables these values again."""
        for variable, value in zip(self._variables, self._values, strict=True):
            zeros = value is None
            variable.assign(ops.zeros(variable.shape, variable.dtype) if zeros else value)
