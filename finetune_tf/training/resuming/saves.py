"""The saves of a resumable fit: one file each, or one folder each through Orbax."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.files import unfinished
from finetune_tf.base.temporary import remove_all_leftovers
from finetune_tf.distribution.current import is_first, is_same_for_all, wait_for_all
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.messages import say
from finetune_tf.training.resuming.files import Stored, is_complete, read_file, remove, write_file
from finetune_tf.training.resuming.orbax_folders import read_folder

_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{6,})\.(?:safetensors|orbax)", re.ASCII)
_DAMAGED = ".damaged"  # the suffix of a file whose checksum is wrong


class Saves:
    """The saves of one fit in a folder, each a safetensors file named after epoch and step.

    Saves that `orbax_saves.OrbaxSaves` has written there are read as well.

    Args:
        folder: The folder, which the first save creates.
        keep: The number of newest saves to keep.
    """

    suffix = ".safetensors"

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def path(self, place: tuple[int, int]) -> Path:
        """Returns the path of a save.

        Args:
            place: The number of finished epochs, and of finished steps of the next one.
        """
        return self.folder / ("epoch-{:04}-step-{:06}".format(*place) + self.suffix)

    def paths(self) -> list[Path]:
        """Returns the paths of the complete saves, the newest first."""
        places = {path: match for path, match in self._found().items() if is_complete(path)}
        order = sorted(places, key=lambda path: tuple(map(int, places[path].groups())))
        return order[::-1]

    def _found(self) -> dict[Path, re.Match]:
        found = list(self.folder.iterdir()) if self.folder.is_dir() else []
        return {path: match for path in found if (match := _NAME.fullmatch(path.name))}

    def newest(self) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]] | None:
        """Reads the newest save; one that is damaged is put aside, with a message.

        Of several processes, the first one does that, and the others read what it has left.

        Returns:
            Its path, its state and its arrays; None without a save.

        Raises:
            ModelError: If the processes find different saves.
        """
        found = self._newest() if is_first() else None
        wait_for_all("newest save")
        found = found if is_first() else self._newest()
        # Otherwise they would train different steps, each with its own weights.
        if not is_same_for_all("no save" if found is None else found[0].name):
            raise ModelError(
                f"The processes of the job find different saves in {self.folder}, this one "
                f"{'none' if found is None else found[0].name}. Give all of them the same folder, "
                "on a disk that they share."
            )
        return found

    def _newest(self) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]] | None:
        if is_first():
            remove_all_leftovers(self.folder)
            for path in self._found():
                if not is_complete(path):
                    remove(path)
        for path in self.paths():
            try:
                return path, *read(path)
            except CheckpointError as error:
                aside = path.with_name(path.name + _DAMAGED)
                remove(aside)
                os.replace(path, aside)
                say(f"{error} It is now called {aside.name}, and the save before it is used.")
        return None

    def begin(
        self,
        place: tuple[int, int],
        state: dict[str, Any],
        arrays: dict[str, Stored],
        without_frozen: Callable,
    ) -> Callable[[], Path]:
        """Begins to write a save.

        Args:
            place: As for `path`.
            state: As for `write`, without "left_out".
            arrays: As for `write`.
            without_frozen: As `ModelState.without_frozen`.

        Returns:
            What finishes it, in another thread; see `write` for its result and its errors.
        """

        def finish() -> Path:
            kept, state["left_out"] = without_frozen(arrays)
            return self.write(place, state, kept)

        return finish

    def write(self, place: tuple[int, int], state: Any, arrays: dict[str, Stored]) -> Path:
        """Writes a save and removes those that are too many; of several processes, the first does.

        Args:
            place: As for `path`.
            state: What JSON can hold. `state["best"]` names a save that is kept, or is None.
            arrays: The arrays by name.

        Returns:
            The path of the save.

        Raises:
            CheckpointError: If it cannot be written, for example on a full disk. Then the former
                saves remain.
            NotFiniteError: If weights are NaN or infinite. Then nothing is written.
        """
        path = self.path(place)
        if is_first():
            with unfinished(path, sync=True) as temporary:
                write_file(temporary, state, arrays)
            self.remove_old(state)
        return path

    def remove_old(self, state: dict[str, Any]) -> None:
        """Removes the saves that are too many; arguments are as for `write`."""
        best = (state.get("best") or {}).get("file")
        for old in self.paths()[self._keep :]:
            if old.name != best:
                remove(old)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a save and compares its checksums.

    Args:
        path: The file, or the folder of a save through Orbax.

    Returns:
        The state and the arrays of the save.

    Raises:
        CheckpointError: If it is damaged or cannot be read.
        MissingExtraError: If Orbax is needed and not installed.
    """
    return read_folder(path) if path.suffix == ".orbax" else read_file(path)
