"""Infers the task that a checkpoint was trained for, and chooses the one it is loaded for."""

from dataclasses import dataclass

from finetune_tf.checkpoints import Checkpoint
from finetune_tf.errors import CheckpointError
from finetune_tf.families import Head
from finetune_tf.tasks import TASKS, Task, get_task
from finetune_tf.weights.table import Weight

# Classes of pretrained checkpoints, which have no head that was trained on labelled data.
_PRETRAINING = ("Model", "ForPreTraining", "ForNextSentencePrediction", "ForMaskedLM")
_DEFAULT = "text-classification"


@dataclass(frozen=True)
class TaskChoice:
    """The task that a checkpoint is loaded for.

    Attributes:
        task: The task.
        reason: Why it was chosen; empty if it was asked for.
        left_out: Describes the trained head of another task that is not loaded; may be empty.
    """

    task: Task
    reason: str = ""
    left_out: str = ""

    def __str__(self) -> str:
        """The part of the message about a load that explains the choice; may be empty."""
        parts = [f"task {self.task.name}, {self.reason}"] if self.reason else []
        if self.left_out:
            parts.append(f"{self.left_out} is left out, because that is another task")
        return "; ".join(parts)


def choose_task(asked: str | None, source: Checkpoint, is_labelled: bool) -> TaskChoice:
    """Chooses the task to load a checkpoint for.

    This is the task that the user asks for, or else the one that the checkpoint was trained for.
    A checkpoint that was only pretrained becomes a text classifier, and so does one that was
    trained without labels if the user gives labels.

    Args:
        asked: Name of a task, or None to infer it.
        source: The checkpoint.
        is_labelled: Whether the user gives labels or a problem type.

    Raises:
        ModelError: If there is no task of the name.
        CheckpointError: If no task is asked for and the checkpoint does not say which one of
            several it was trained for, or was trained for one that is not supported.
    """
    classes = class_names(source)
    unknown = [n for n in classes if not n.endswith(_PRETRAINING) and not _tasks_of(n, source)]
    if asked is not None:
        task = get_task(asked)
        # The names of the tensors alone are no reason to doubt the user.
        trained = _by_classes(classes, source) or _by_modules(source)
        return TaskChoice(task, "", _left_out(task, trained, unknown))
    trained = _by_classes(classes, source)
    if unknown and not trained and not is_labelled:
        raise CheckpointError(
            f"{source.folder} was trained as {unknown[0]}, which is none of the supported tasks. "
            f"Say which task to load it for, with a new head: task= one of {', '.join(TASKS)}."
        )
    if len(trained) > 1:
        with_tensors = {n: why for n, why in trained.items() if _has_head(TASKS[n], source)}
        trained = with_tensors if len(with_tensors) == 1 else trained
    modules = _by_modules(source)
    if not trained or (modules and set(trained) == {"fill-mask"}):
        trained = modules
    if not trained and not unknown:
        trained = _by_tensors(source)
    trained = _most_specific(trained, source)
    if any(not TASKS[name].has_trained_labels for name in trained):
        # One class is for labels that are texts, and for no labels.
        fitting = {n: why for n, why in trained.items() if TASKS[n].has_labels == is_labelled}
        trained = fitting if len(fitting) == 1 else trained
    if len(trained) > 1:
        raise CheckpointError(
            f"{source.folder} may have been trained for {' or '.join(trained)}: its config.json "
            f"names {', '.join(classes) or 'no class of model'}. Say which: task='…'."
        )
    for name, reason in trained.items():
        if TASKS[name].has_labels or not is_labelled:
            return TaskChoice(get_task(name), reason)
    reason = "because labels are given" if is_labelled else "because it has no trained head"
    default = get_task(_default_task(source))
    return TaskChoice(default, reason, _left_out(default, trained, unknown))


def _default_task(source: Checkpoint) -> str:
    """The first task with labels for which the family has a head."""
    heads = source.family.heads(source.config)
    return next((n for n, task in TASKS.items() if task.has_labels and n in heads), _DEFAULT)


def class_names(source: Checkpoint) -> list[str]:
    """The model classes that config.json names."""
    named = source.config.get("architectures") or []
    return [name for name in ([named] if isinstance(named, str) else named) if name]


def is_class_of_other_task(source: Checkpoint, task: Task) -> bool:
    """Whether config.json names classes with a head, but none for this task.

    The tensors cannot decide this: heads for tokens, multiple choice and texts share their names.
    """
    with_head = [name for name in class_names(source) if "For" in name or "LMHead" in name]
    return bool(with_head) and not any(_is_class_of(name, task, source) for name in with_head)


def _is_class_of(class_name: str, task: Task | type[Task], source: Checkpoint) -> bool:
    own = source.family.class_name(task.class_suffix)
    return class_name.endswith(task.class_suffix) or class_name == own


def _tasks_of(class_name: str, source: Checkpoint) -> list[str]:
    """The tasks of a class with a head that this family supports.

    A class that is named after another task counts only if the config names the task.
    """
    heads = source.family.heads(source.config)
    return [
        name
        for name, task in TASKS.items()
        if name in heads and task.class_suffix != "Model" and _is_class_of(class_name, task, source)
        if not _borrows_class(name, source) or source.config.get("finetuning_task") == name
    ]


def _borrows_class(name: str, source: Checkpoint) -> bool:
    """Whether the family's models for a task are saved as a class that belongs to another task."""
    suffix = TASKS[name].class_suffix
    own = source.family.class_name(suffix)
    others = {task.class_suffix for task in TASKS.values()} - {suffix, "Model"}
    return own.endswith(tuple(others))


def _by_classes(classes: list[str], source: Checkpoint) -> dict[str, str]:
    """Returns the tasks that the classes belong to, with the reason for each."""
    return {
        task: f"by its class {name}"
        for name in reversed(classes)
        for task in _tasks_of(name, source)
    }


def _by_modules(source: Checkpoint) -> dict[str, str]:
    modules = source.modules
    if modules.pooling is None and not modules.types:
        return {}
    names = source.config.get("id2label") or {}
    # A Dense module may also be part of an embedding; only for a classifier it has label names.
    ends_in_dense = modules.types[-1:] in ((), ("Dense",)) and modules.activation == "Identity"
    if ends_in_dense and modules.dense_size == len(names):
        return {"text-classification": "by the classifier in its modules.json"}
    where = "modules.json" if modules.types else "1_Pooling"
    return {"feature-extraction": f"by its {where}"}


def _by_tensors(source: Checkpoint) -> dict[str, str]:
    """The tasks for which the checkpoint has a head; of these the ones with the most tensors."""
    sizes = {
        name: _has_head(task, source)
        for name, task in TASKS.items()
        if not (task.has_labels and is_class_of_other_task(source, task))
        and not _borrows_class(name, source)
    }
    most = max(sizes.values())
    return {name: "by its tensors" for name, size in sizes.items() if size and size == most}


def _most_specific(trained: dict[str, str], source: Checkpoint) -> dict[str, str]:
    """Decides between tasks with the same classes, one of which is a special case of another.

    Folders of this library name the task; otherwise it is the general one.
    """
    named = source.config.get("finetuning_task")
    if isinstance(named, str) and named in trained and len(trained) > 1:
        return {named: "by finetuning_task in its config.json"}
    return {
        name: why
        for name, why in trained.items()
        if not any(TASKS[other] in TASKS[name].__mro__[1:] for other in trained)
    }


def _has_head(task: Task, source: Checkpoint) -> int:
    """The number of variables that the checkpoint's head for a task fills; 0 unless it is all."""
    heads = source.family.heads(source.config)
    if task.name not in heads or not task.output_layers:
        return 0
    rows = _head_rows(heads[task.name], task, source)
    found = {path for row in rows if row.is_in(source.tensors) for path in row.variables}
    wanted = {path for row in rows for path in row.variables}
    return len(found) if found == wanted else 0


def _head_rows(head: Head, task: Task, source: Checkpoint) -> list[Weight]:
    """The rows of a head and of its pooler, which some families count as part of the backbone."""
    pooler: list[Weight] = []
    if task.poolings and head.transform is not None:
        table = source.family.weights(source.config)
        pooler = [row for row in table if row.belongs_to(["pooler"])]
    return [row for row in [*head.weights, *pooler] if row.variables]


def _left_out(task: Task, trained: dict[str, str], unknown: list[str]) -> str:
    """Describes the head of another task that is not loaded, unless it is a pretraining head."""
    others = [name for name in trained if name not in ("fill-mask", "feature-extraction")]
    if task.name in trained:
        return ""
    if others:
        return f"its trained head for {others[0]}"
    return f"the trained head of {unknown[0]}" if unknown else ""
