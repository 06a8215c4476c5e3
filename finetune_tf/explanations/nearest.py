"""Nearest training examples: those whose vectors below the head are similar."""

import hashlib
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.base.labels import Labels, label_text
from finetune_tf.data.feature_store import Arrays, FeatureStore
from finetune_tf.data.image_columns import shown_image
from finetune_tf.explanations.explanation import Neighbor
from finetune_tf.graph.hidden_states import unused_name
from finetune_tf.graph.taps import input_of_head
from finetune_tf.graph.traces import traces_of
from finetune_tf.model.equal_rows import digests_of
from finetune_tf.model.inference import rows_of

BATCH_SIZE = 64


def neighbors_of(
    model: Any, encoded: Any, train: Any, known: Any, count: int
) -> list[tuple[Neighbor, ...]]:
    """Finds the nearest training examples of each row.

    The vectors of the training examples are computed once, and stored until the weights of the
    model change.

    Args:
        model: A model from `load`.
        encoded: The encoded examples that are explained.
        train: The training examples.
        known: The encoded training examples.
        count: The number of neighbors.

    Returns:
        For each row of `encoded` its neighbors, the nearest one first.
    """
    part = _below_head(model)
    own = _normalized(_vectors(part, encoded, "rows"))
    others = _normalized(_stored_vectors(model, part, known, train.name))
    similarities = own @ others.T
    nearest = np.argsort(-similarities, axis=1, kind="stable")
    example = known.example if known.example is not None else np.arange(len(known))
    return [
        tuple(
            _neighbor(model, train, known, int(row), int(example[row]), float(similarities[i, row]))
            for row in _distinct(order, example, count)
        )
        for i, order in enumerate(nearest)
    ]


def _distinct(order: np.ndarray, example: np.ndarray, count: int) -> list[int]:
    """The first rows of different examples, of which each may have several rows."""
    found: dict[int, int] = {}
    for row in order:
        found.setdefault(int(example[row]), int(row))
        if len(found) == count:
            break
    return list(found.values())


def _below_head(model: Any) -> keras.Model:
    parts = traces_of(model)
    if "below head" not in parts:
        name = unused_name(f"{model.name}_below_head")
        parts["below head"] = keras.Model(inputs_struct(model), input_of_head(model), name=name)
    return parts["below head"]


def _stored_vectors(model: Any, part: keras.Model, encoded: Any, name: str) -> np.ndarray:
    digest = hashlib.sha256()
    for variable in part.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)))
    for key, feature in sorted(encoded.inputs.items()):
        digest.update(key.encode())
        digest.update(b"".join(digests_of(feature.rows)))
    store = traces_of(model).setdefault("vectors below head", FeatureStore(None))

    def compute(arrays: Arrays) -> None:
        arrays["vectors"][:] = _vectors(part, encoded, name)

    shapes = {"vectors": (len(encoded), part.output.shape[-1])}
    key = digest.hexdigest()
    return store.get(key, shapes, f"Vectors of {name} below the head", compute)["vectors"]


def _vectors(part: keras.Model, encoded: Any, name: str) -> np.ndarray:
    """A vector for each row; where the head reads all tokens, the mean of theirs."""
    vectors = np.empty((len(encoded), part.output.shape[-1]), "float32")
    lengths = list(encoded.lengths.values())
    for row, output in rows_of(part, encoded, BATCH_SIZE, _outputs_alone, name):
        if output.ndim > 1:
            output = output[: lengths[-1][row]] if lengths else output
            output = output.reshape(-1, output.shape[-1]).mean(axis=0)
        vectors[row] = output
    return vectors


def _normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _neighbor(
    model: Any, train: Any, known: Any, row: int, example: int, similarity: float
) -> Neighbor:
    task, columns, pixels = model.task, train.columns, None
    label = columns[task.target_column][example] if task.target_column in columns else ""
    texts = [
        columns[name][example]
        for name in task.columns
        if name in columns and name not in (task.target_column, "image")
    ]
    if PIXELS in known.inputs:
        pixels = np.asarray(known.inputs[PIXELS][row])
        texts = [shown_image(columns["image"][example]), *texts]
    text = " / ".join(" ".join(each) if isinstance(each, list) else each for each in texts)
    return Neighbor(example, similarity, _label_text(label, train.labels), text, pixels)


def _label_text(label: Any, labels: Labels | None) -> str:
    """A label in words, by its name where the examples hold class numbers."""
    if isinstance(label, dict):
        return ", ".join(map(str, label.get("text", ())))
    if isinstance(label, list | tuple | np.ndarray):
        return ", ".join(_label_text(each, labels) for each in label)
    is_class = labels is not None and labels.problem_type != "regression"
    index = labels.index_of(label) if is_class else None
    return label_text(label) if index is None else labels[index]


def _outputs_alone(outputs: Any, targets: Any) -> Any:
    return outputs
