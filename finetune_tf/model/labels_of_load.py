"""The labels of a model that is loaded: those asked for, those stored, or generic ones."""

from collections.abc import Iterable

from finetune_tf.base.arguments import shown
from finetune_tf.base.labels import Labels
from finetune_tf.checkpoints import Checkpoint
from finetune_tf.errors import ArgumentError, CheckpointError
from finetune_tf.messages import say
from finetune_tf.tasks import TASKS, Task
from finetune_tf.weights.table import Weight

_SHOWN = 5  # labels that a message lists


def checked_prompts(prompts: str | Iterable[str], task: str | None) -> list[str]:
    """Returns the texts that describe a label, in a list.

    Args:
        prompts: One text or several, with "{}" in the place of the label.
        task: The name of the task.

    Raises:
        ArgumentError: If the task has no prompts, or a text has no place for the label.
    """
    taking = [name for name, each in TASKS.items() if each.takes_prompts]
    if task not in taking:
        raise ArgumentError(f"prompts= is for the task {taking[0]!r}, found task={task!r}.")
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    wrong = [text for text in listed if not isinstance(text, str) or text.count("{}") != 1]
    if wrong or not listed:
        raise ArgumentError(
            f"Each prompt is a text with {{}} in the place of the label, such as 'a photo of a "
            f"{{}}', found {shown(wrong[0] if wrong else listed)}."
        )
    return listed


def choose_labels(
    asked: Labels | Iterable[str] | int | None,
    problem_type: str | None,
    task: Task,
    source: Checkpoint,
    trained: list[Weight] | None,
) -> Labels | None:
    """Returns the names of the outputs of a model that is loaded.

    Args:
        asked: The labels that the user gave; None for those of the checkpoint.
        problem_type: The problem type that the user gave.
        task: The task, without labels.
        source: The checkpoint.
        trained: The weight table of a trained head; None if there is none.

    Raises:
        CheckpointError: If the task has no labels, or a trained head is for other ones.
        ModelError: If the labels are texts that the model reads, and there are none.
    """
    if not task.has_labels:
        if asked is not None or problem_type is not None:
            raise CheckpointError(f"A model for {task.name} has no labels, found {asked!r}.")
        return None
    if not task.has_trained_labels:
        return _free_labels(asked, problem_type, task, source)
    if asked is None:
        return _stored_labels(source, problem_type, trained)
    given_type = problem_type
    if not isinstance(asked, Labels):
        if trained and problem_type is None:
            problem_type = source.config.get("problem_type")
        asked = Labels(Labels.of(asked), problem_type)
    if not trained:  # the labels of the old head, perhaps for another problem type, do not matter
        return asked
    stored = _stored_labels(source, given_type, trained)
    generic = Labels.of(len(stored))
    if len(asked) == len(stored):
        # The outputs of a trained head keep their order; only generic names are replaced.
        if stored == generic or len(stored) == 1:
            _say_names(source, stored, asked)
            return asked
        if asked == generic or set(asked) == set(stored):
            return Labels(stored, asked.problem_type)
    raise CheckpointError(
        f"{source.folder} has a head trained for the labels {shown(list(stored), 300)}, but "
        f"{shown(list(asked), 300)} were requested. Leave labels out to keep that head, or "
        f"replace it with load(…, new_head=True). It is a head for {task.name}; pass task=… for "
        "another task."
    )


def _say_names(source: Checkpoint, stored: Labels, asked: Labels) -> None:
    """Says which names the outputs of a trained head get, whose order nothing can confirm."""
    numbers = tuple(map(str, range(len(stored))))
    if len(stored) == 1 or tuple(asked) in (tuple(stored), numbers):
        return
    pairs = list(zip(stored, asked, strict=True))
    listed = ", ".join(f"{old} is called {new!r}" for old, new in pairs[:_SHOWN])
    more = ", …" if len(pairs) > _SHOWN else ""
    say(
        f"The trained head of {source.folder} has no names for its labels: {listed}{more}. If that "
        "is not their order in its training, give labels=[…] in that order, or new_head=True."
    )


def _stored_labels(
    source: Checkpoint, problem_type: str | None, trained: list[Weight] | None
) -> Labels:
    """Returns the labels of the config, or generic ones, one for each output of the head."""
    names = source.config.get("id2label") or {}
    problem_type = problem_type or source.config.get("problem_type")
    stored = [names[key] for key in sorted(names, key=int)]
    count = len(stored) or 2
    for row in trained or ():
        if "classifier/dense/kernel" in row.variables and row.is_in(source.tensors):
            count = next(iter(source.tensors[row.tensors[0]].shape), 0) or count
    if len(stored) != count:
        if stored and tuple(stored) != Labels.of(len(stored)):
            raise CheckpointError(
                f"{source.folder} has a head trained for {count} labels, but its config.json names "
                f"{len(stored)}: {stored[:10]}. Specify all of them, as in "
                'load(…, config={"id2label": {"0": …}}), or replace the head with new_head=True.'
            )
        stored = Labels.of(count)
    return Labels(stored, problem_type)


def _free_labels(
    asked: Labels | Iterable[str] | int | None,
    problem_type: str | None,
    task: Task,
    source: Checkpoint,
) -> Labels:
    """Returns labels that are texts, which the checkpoint has if it was saved for the task."""
    if asked is None and task.stores_labels(source.config):
        asked = _stored_labels(source, problem_type, None)
    if isinstance(asked, int):
        asked = None  # a number names nothing
    elif asked is not None and not isinstance(asked, Labels):
        asked = Labels(Labels.of(asked), problem_type)
    task.require_labels(asked)
    return asked
