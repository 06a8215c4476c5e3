"""Classification without examples, by what the labels mean: `zero_shot`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.labels import Labels
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation.predict import outputs, predict
from finetune_tf.messages import quiet, say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.loading import load
from finetune_tf.tasks.classification import Classification, Prediction
from finetune_tf.tasks.decisions import THRESHOLD
from finetune_tf.training.untrained import untrained_layers

# The cosines of sentence encoders are trained with about this factor (a temperature of 0.05).
_SCALE = 20.0
_NEUTRAL = "neutral"


@names_checked
def zero_shot(
    checkpoint: str | Path | FineTuneModel,
    texts: str | Iterable[str] | Examples,
    labels: Labels | Iterable[str],
    *,
    template: str | Iterable[str] = "This text is about {}.",
    multi_label: bool = False,
    batch_size: int = 64,
    dtype: Any = None,
) -> Any:
    """Classifies texts by labels that no example explains.

    The checkpoint decides the way, which a message names:

    - a classifier of pairs whose labels contain "entailment" (natural language inference) is asked
      whether the text entails the template with the label (Yin et al., Benchmarking Zero-shot Text
      Classification, 2019). The probabilities are the softmax of the logits of entailment over the
      labels; with `multi_label`, that of entailment against contradiction for each label;
    - of a sentence encoder, the vector of the text is compared with the vector of the template with
      the label. The probabilities are the softmax of 20 times the cosines. They have the order of
      the cosines, but nobody has trained them as probabilities.

    Both read the words of the labels, so "complaint about the price" works better than "class 3".
    Measure the result with a few labelled texts before you rely on it: eight examples of each class
    are often better (`fewshot.fit`).

    Args:
        checkpoint: A folder, a Hub id, or a model from `load`, which is not loaded again.
        texts: One text or several, or `Examples`, whose labels are ignored.
        labels: The names of the labels, in words.
        template: A text with "{}" in the place of the label; or several, which are averaged.
        multi_label: Whether each label is decided for itself, so that a text may have several or
            none. Only by entailment: a cosine has no threshold.
        batch_size: Texts in a batch.
        dtype: As for `ft.load`.

    Returns:
        As `ft.predict`: for a single text one `Prediction`, otherwise a list of them.

    Raises:
        ArgumentError: If a template has no place for the label, or `multi_label` is asked of a
            sentence encoder.
        DataError: If the labels are wrong, a text is empty, or `Examples` have other columns than
            texts and labels, such as the second texts of pairs.
        ModelError: If the checkpoint is neither of the two, such as a classifier of sentiment.

    Example:
        >>> encoder = ft.load(checkpoint, "feature-extraction", pooling="mean")
        >>> found = ft.zero_shot(encoder, "a dull film", labels=["good", "bad"])
        >>> found.label in ("good", "bad")
        True
    """
    check(batch_size=batch_size)
    templates = _checked_templates(template)
    names = Labels.of(labels)
    if len(names) < 2 and not multi_label:
        raise ArgumentError(
            f"zero_shot chooses between labels, so it needs at least two, found {list(names)}. "
            "With multi_label=True, one is decided for itself."
        )
    is_single = isinstance(texts, str)
    listed = _texts(texts)
    if isinstance(checkpoint, FineTuneModel):
        model = checkpoint
    else:
        with quiet():
            model = load(checkpoint, dtype=dtype)
    is_encoder = model.task.output_kind == "vectors"
    index = None if is_encoder else _entailment(model)
    if is_encoder and multi_label:
        raise ArgumentError(
            "multi_label=True needs a checkpoint with an entailment head: the cosine of a sentence "
            "encoder says which label is nearest, but not whether a label applies."
        )
    if not listed:
        return []
    probabilities = np.empty(0)
    if is_encoder:
        probabilities = _by_cosine(model, listed, names, templates, batch_size)
        way = "the cosine of the vectors of text and label (sentence encoder)"
    else:
        probabilities = _by_entailment(
            model, index, listed, names, templates, multi_label, batch_size
        )
        way = f"its entailment head (label {model.labels[index]!r})"
    say(f"zero_shot: {len(listed):,} texts and {len(names)} labels compared by {way}.")
    found = [_prediction(row, names, multi_label) for row in probabilities]
    return found[0] if is_single else found


def _by_cosine(
    model: Any, texts: list[str], names: Labels, templates: list[str], batch_size: int
) -> np.ndarray:
    """Returns the softmax of the scaled cosines (texts, labels)."""

    def unit(vectors: np.ndarray) -> np.ndarray:
        vectors = np.float64(vectors)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

    described = [text.replace("{}", name) for text in templates for name in names]
    vectors = unit(predict(model, described, batch_size=batch_size))
    of_labels = unit(vectors.reshape(len(templates), len(names), -1).mean(axis=0))
    cosines = unit(predict(model, texts, batch_size=batch_size)) @ of_labels.T
    return _softmax(_SCALE * cosines)


def _by_entailment(
    model: Any,
    index: int,
    texts: list[str],
    names: Labels,
    templates: list[str],
    multi_label: bool,
    batch_size: int,
) -> np.ndarray:
    """Returns the probabilities of the labels (texts, labels)."""
    rows = [
        (text, template.replace("{}", name))
        for text in texts
        for template in templates
        for name in names
    ]
    first, second = map(list, zip(*rows, strict=True))
    pairs = Examples({"text": first, "text_pair": second}, name="pairs of text and label")
    logits = np.float64(np.stack(outputs(model, pairs, batch_size)[0]))
    logits = logits.reshape(len(texts), len(templates), len(names), -1).mean(axis=1)
    if not multi_label:
        return _softmax(logits[..., index])
    # Neutral says neither, so it is left out.
    kept = [i for i, name in enumerate(model.labels) if _NEUTRAL not in name.lower()]
    return _softmax(logits[..., kept])[..., kept.index(index)]


def _entailment(model: Any) -> int:
    """Returns the index of the label "entailment" of a classifier of pairs.

    Raises:
        ModelError: If the model is no such classifier.
    """
    advice = (
        "zero_shot needs a classifier of pairs with a label named entailment (trained on NLI), or "
        "a sentence encoder (a folder with modules.json or 1_Pooling)."
    )
    task = model.task
    if not isinstance(task, Classification) or task.preprocessor != "tokenizer":
        raise ModelError(f"{advice} Found a model for {task.title.replace('_', ' ')}.")
    if untrained_layers(model):
        raise ModelError(
            f"{advice} {model.info.checkpoint} has neither: it is a pretrained encoder whose "
            "vectors were not trained to be compared, and its head is new."
        )
    found = [i for i, name in enumerate(model.labels) if name.lower().lstrip().startswith("entail")]
    if len(found) != 1 or task.problem_type != "single_label_classification":
        raise ModelError(
            f"{advice} The head of {model.info.checkpoint} has the labels "
            f"{model.labels.listed()}, which say nothing about other labels. If one of them is "
            'entailment under another name, name them: ft.load(checkpoint, labels=["entailment", '
            "…]), in their order, and give the model to zero_shot."
        )
    return found[0]


def _prediction(row: np.ndarray, names: Labels, multi_label: bool) -> Prediction:
    probabilities = {name: float(value) for name, value in zip(names, row, strict=True)}
    best = max(probabilities, key=probabilities.get)
    if not multi_label:
        return Prediction(best, probabilities[best], probabilities)
    chosen = [name for name, value in probabilities.items() if value >= THRESHOLD]
    return Prediction(chosen, probabilities[best], probabilities)


def _checked_templates(template: Any) -> list[str]:
    listed = [template] if isinstance(template, str) else list(template)
    wrong = [text for text in listed if not isinstance(text, str) or text.count("{}") != 1]
    if wrong or not listed:
        raise ArgumentError(
            "A template is a text with {} in the place of the label, such as 'This text is about "
            f"{{}}.', found {shown(wrong[0] if wrong else listed)}."
        )
    return listed


def _texts(texts: Any) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, Examples):
        read = [name for name in texts.columns if name != "label"]
        if read != ["text"]:
            raise DataError(
                f"zero_shot classifies single texts, but {texts.name} has the columns "
                f"{', '.join(read)}. Pass what is to be classified as one text for each row."
            )
        return list(texts.columns["text"])
    if not isinstance(texts, Iterable) or isinstance(texts, dict):
        raise DataTypeError(
            f"zero_shot expects a text, a list of texts or Examples, found {shown(texts)}."
        )
    return list(texts)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
