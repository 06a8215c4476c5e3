"""A search that is stored in a folder: Optuna's study, and whether it is continued."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, CheckpointError, MissingExtraError
from finetune_tf.messages import say
from finetune_tf.search.space import as_code
from finetune_tf.training.objectives import Objective

JOURNAL = "search.log"
_STUDY = "finetune_tf"
_IDENTITY = "identity"  # the attribute of a study with what a search depends on
#: Attributes of trials: of the one with the default settings, of those that were run (how long it
#: took), of those that failed, and of those that were not run, because another had their settings.
DEFAULT, SECONDS, ERROR, REPEATED = "default", "seconds", "error", "repeated"
_STARTUP = 4  # finished trials before one is pruned


def require_optuna() -> ModuleType:
    """Imports Optuna, or explains how to install it.

    Raises:
        MissingExtraError: If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "tune needs optuna, which is not installed. Install it with: "
            "pip install 'finetune-tf[search]'"
        ) from error
    return optuna


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Inside the block, Optuna logs warnings only."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def stored_study(folder: Path, identity: Mapping[str, str]) -> Any | None:
    """Returns the study that an earlier call left in a folder, or None if there is none.

    A trial that was running when the process ended is run again first.

    Args:
        folder: The folder of the search.
        identity: What the search depends on, by name; see `identity_of`.

    Raises:
        ArgumentError: If the study depends on something else; the message names it.
        CheckpointError: If the file of the study cannot be read.
    """
    import optuna

    if not (folder / JOURNAL).exists():
        return None
    _remove_unfinished_line(folder / JOURNAL)
    try:
        study = optuna.load_study(study_name=_STUDY, storage=_storage(folder))
    except KeyError:  # the process ended before the study was stored
        return None
    except Exception as error:  # Optuna raises what its parser raises
        raise CheckpointError(
            f"{folder / JOURNAL} is damaged ({type(error).__name__}: {error}), so the search "
            "cannot be continued. Choose another folder."
        ) from None
    before = study.user_attrs.get(_IDENTITY)
    if before is None:
        return None
    if changed := [name for name in identity if before.get(name) != identity[name]]:
        raise ArgumentError(
            f"{folder} holds a search with another {' and another '.join(changed)}. Choose another "
            "folder, or continue that search with the same arguments as before."
        )
    study.pruner = _pruner()
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        study.enqueue_trial(trial.params)
        say(f"Trial {trial.number} was interrupted and is run again.")
    return study


def new_study(folder: Path, identity: Mapping[str, str], direction: str) -> Any:
    """Creates a study in a folder.

    Args:
        folder: The folder of the search, which exists.
        identity: As for `stored_study`.
        direction: "maximize" or "minimize".
    """
    import optuna

    (folder / JOURNAL).unlink(missing_ok=True)  # of a search that ended before it began
    study = optuna.create_study(
        study_name=_STUDY, storage=_storage(folder), direction=direction, pruner=_pruner()
    )
    study.set_user_attr(_IDENTITY, dict(identity))
    return study


def ask(study: Any, seed: int) -> Any:
    """Returns the next trial; it depends on the seed and on the trials so far, and nothing else.

    A search that was interrupted therefore proposes what it would have proposed otherwise.
    """
    import optuna

    ended = [t for t in study.get_trials(deepcopy=False) if {SECONDS, REPEATED} & set(t.user_attrs)]
    study.sampler = optuna.samplers.TPESampler(seed=(seed + len(ended)) % 2**32)
    return study.ask()


def _storage(folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def _remove_unfinished_line(path: Path) -> None:
    """Removes the end of a journal after its last whole line.

    A process that is killed while it writes leaves part of a line, to which Optuna would append.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _pruner() -> Any:
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)


def identity_of(
    checkpoint: Any,
    train: Examples,
    validation: Examples | None,
    space: Mapping[str, Any],
    fixed: Mapping[str, Any],
    seed: int,
) -> dict[str, str]:
    """Returns what the trials of a search depend on, as texts by what messages call them."""

    def text(values: Any) -> str:
        if isinstance(values, Mapping):
            return "; ".join(f"{name}: {text(each)}" for name, each in values.items())
        if isinstance(values, list | tuple):
            return f"[{', '.join(map(text, values))}]"
        if isinstance(values, Objective):  # such as the weights of a teacher
            known = values.get_config()
            more = {k: v for k, v in values.settings().items() if k not in known}
            return as_code(values) + (f" with {more}" if more else "")
        return as_code(values) if not hasattr(values, "suggest") else str(values)

    return {
        "checkpoint": str(checkpoint),
        "training data": _digest(train),
        "validation data": "" if validation is None else _digest(validation),
        "space": text(space),
        "fixed setting": text(dict(sorted(fixed.items()))),
        "seed": str(seed),
    }


def _digest(examples: Examples) -> str:
    digest = hashlib.sha256(repr(examples.labels).encode())
    for name, values in sorted(examples.columns.items()):
        digest.update(name.encode())
        for value in values:
            _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    """Adds a value of a column to a hash, with a mark of its kind and of its size."""
    if isinstance(value, list | tuple):
        digest.update(b"[%d" % len(value))
        for each in value:
            _add(digest, each)
    elif isinstance(value, Mapping):
        _add(digest, list(value.items()))
    elif isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):
        array = np.ascontiguousarray(value)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array)
    else:
        content = value if isinstance(value, bytes) else repr(value).encode("utf-8", "replace")
        digest.update(b"%d:" % len(content))
        digest.update(content)
