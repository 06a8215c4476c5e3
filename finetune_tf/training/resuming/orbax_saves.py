"""Saves through Orbax, written by all processes together while training goes on."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_tf.base.files import unfinished
from finetune_tf.distribution.current import is_first, several_processes
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.training.resuming.files import (
    NotFiniteError,
    Stored,
    remove,
    state_file,
    write_file,
)
from finetune_tf.training.resuming.orbax_folders import (
    ARRAYS,
    OF_WRITING,
    facts_of,
    key_of,
    new_checkpointer,
    reason_of,
)
from finetune_tf.training.resuming.saves import Saves


class OrbaxSaves(Saves):
    """The saves of one fit in a folder, each a folder named after epoch and step; JAX only.

    Args:
        folder: As for `Saves`.
        keep: As for `Saves`.
    """

    suffix = ".orbax"

    def begin(
        self,
        place: tuple[int, int],
        state: dict[str, Any],
        arrays: dict[str, Stored],
        without_frozen: Callable,
    ) -> Callable[[], Path]:
        """Copies the arrays to the memory of the host, and begins to write them.

        Arguments and result are as for `Saves.begin`.

        Raises:
            CheckpointError: If it cannot begin.
            ModelError: If it cannot begin in one of several processes.
            NotFiniteError: If weights are NaN or infinite. Then nothing is written.
        """
        facts = facts_of({n: a.tensor for n, a in arrays.items() if a.tensor is not None})
        if any(arrays[name].must_be_finite and not finite for name, (_, finite) in facts.items()):
            raise NotFiniteError
        kept, state["left_out"] = without_frozen(arrays)
        # Orbax writes no arrays without values.
        tensors = {n: a.tensor for n, a in kept.items() if a.tensor is not None and a.size}
        state["arrays"] = {n: [kept[n].shape, kept[n].dtype, facts[n][0]] for n in tensors}
        rest = {name: array for name, array in kept.items() if name not in tensors}
        path = self.path(place)
        checkpointer = new_checkpointer(together=several_processes())
        try:
            if is_first():  # the others wait for it in `save`
                remove(path)
                path.mkdir(parents=True)
            checkpointer.save(path / ARRAYS, {key_of(n): tensor for n, tensor in tensors.items()})
        except OF_WRITING as error:
            raise _not_written(path, error) from error

        def finish() -> Path:
            try:
                try:
                    checkpointer.wait_until_finished()
                finally:
                    checkpointer.close()  # which waits for files of its own
            except OF_WRITING as error:
                raise _not_written(path, error) from error
            if is_first():  # all others have written their parts
                with unfinished(state_file(path), sync=True) as temporary:
                    write_file(temporary, state, rest)
                self.remove_old(state)
            return path

        return finish


def _not_written(path: Path, error: Exception) -> CheckpointError | ModelError:
    message = f"{path} cannot be written: {reason_of(error)}."
    if several_processes():
        # The others cannot finish this save, and would wait for it; a part of it stays.
        return ModelError(
            f"{message} This ends the job. Start all processes again: they continue from the last "
            "save."
        )
    with contextlib.suppress(OSError):
        remove(path)
    return CheckpointError(message)
