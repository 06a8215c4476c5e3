"""The registry of evaluators: one for each kind of task."""

from finetune_tf.errors import ModelError
from finetune_tf.evaluation.evaluators.answers import Answers
from finetune_tf.evaluation.evaluators.evaluator import Evaluator
from finetune_tf.evaluation.evaluators.examples import (
    ExampleRegression,
    MultiLabelExamples,
    SingleLabelExamples,
)
from finetune_tf.evaluation.evaluators.generated import Summaries, Texts, Translations
from finetune_tf.evaluation.evaluators.images import (
    ImageRegression,
    MultiLabelImages,
    SingleLabelImages,
)
from finetune_tf.evaluation.evaluators.language import Language
from finetune_tf.evaluation.evaluators.masks import MaskedWords
from finetune_tf.evaluation.evaluators.retrieval import Retrieval
from finetune_tf.evaluation.evaluators.similarity import Similarity
from finetune_tf.evaluation.evaluators.text import MultiLabel, Regression, SingleLabel
from finetune_tf.evaluation.evaluators.tokens import Entities, Tags
from finetune_tf.evaluation.evaluators.videos import (
    MultiLabelVideos,
    SingleLabelVideos,
    VideoRegression,
)
from finetune_tf.tasks import Task

#: The evaluators by the value of `Task.evaluator`.
EVALUATORS: dict[str, Evaluator] = {
    "single_label_classification": SingleLabel(),
    "multi_label_classification": MultiLabel(),
    "regression": Regression(),
    "token-classification": Entities(),
    "tagging": Tags(),
    "question-answering": Answers(),
    "fill-mask": MaskedWords(),
    "text-generation": Language(),
    "text2text-generation": Texts(),
    "translation": Translations(),
    "summarization": Summaries(),
    "similarity": Similarity(),
    "images/single_label_classification": SingleLabelImages(),
    "images/multi_label_classification": MultiLabelImages(),
    "images/regression": ImageRegression(),
    "examples/single_label_classification": SingleLabelExamples(),
    "examples/multi_label_classification": MultiLabelExamples(),
    "examples/regression": ExampleRegression(),
    "image-text-retrieval": Retrieval(),
    "videos/single_label_classification": SingleLabelVideos(),
    "videos/multi_label_classification": MultiLabelVideos(),
    "videos/regression": VideoRegression(),
}


def evaluator_of(task: Task, kind: str | None = None) -> Evaluator:
    """Returns the evaluator of a task.

    Args:
        task: The task.
        kind: The key of the evaluator; by default that of the task.

    Raises:
        ModelError: If predictions of the task cannot be measured, as those of
            image-feature-extraction.
    """
    found = EVALUATORS.get(kind or task.evaluator)
    if found is None:
        raise ModelError(
            f"The predictions of {task.name} cannot be measured, because there are no labels for "
            "them. Load the checkpoint for another task, such as "
            'ft.load(checkpoint, "image-classification", labels=train.labels).'
        )
    return found


def direction_note(kind: str, before: str, after: str = "") -> str:
    """Returns the note "lower is better" for a main metric of that kind, else "".

    Args:
        kind: A key of `EVALUATORS`.
        before: The text before the note.
        after: The text after the note.

    Example:
        >>> from finetune_tf.evaluation.evaluators.registry import direction_note
        >>> direction_note("fill-mask", " (", ")"), direction_note("regression", " (", ")")
        (' (lower is better)', '')
    """
    return f"{before}lower is better{after}" if EVALUATORS[kind].lower_is_better else ""
