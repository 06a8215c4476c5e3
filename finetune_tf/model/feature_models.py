"""The upper part of a model, above its frozen stages; `feature_cache` makes it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import check
from finetune_tf.data.feature_store import Arrays
from finetune_tf.data.rows import StoredRows
from finetune_tf.errors import CacheError, ModelError
from finetune_tf.graph.pieces import input_followed_by
from finetune_tf.model.equal_rows import digests_of, equal_rows
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.inference import rows_of
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.decisions import DECISION_KEYS
from finetune_tf.tasks.feature import MASKS, Feature
from finetune_tf.training.callbacks import FollowTrainable
from finetune_tf.training.freezing import count_parameters

BATCH_SIZE = 64  # of the one pass through the frozen stages


class OnFeatures(keras.Model):
    """What the upper parts of all models have in common."""

    @property
    def whole(self) -> keras.Model:
        """The model whose upper part this is."""
        return self._origin.whole

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Fits like any Keras model.

        Raises:
            ModelError: If a stage below the cut is trainable by now, or its weights or adapters
                have changed since the features of the batches, or of the validation, were computed.
        """
        self._origin.refuse_trainable_trunk()
        self._origin.refuse_stale_features(x, args, kwargs.get("validation_data"))
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates like any Keras model; raises a ModelError for features of earlier weights."""
        if "_use_cached_eval_dataset" not in kwargs:  # otherwise `fit` has checked them
            self._origin.refuse_stale_features(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts like any Keras model; raises a ModelError for features of earlier weights."""
        self._origin.refuse_stale_features(x)
        return super().predict(x, *args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the whole model."""
        self.whole.save(*args, **kwargs)


class FeatureModel(OnFeatures, FineTuneModel):
    """The upper part of a model, which trains on cached features of the frozen stages below.

    `cache_features` makes it. Saving and exporting it, its tokenizer, and the number of its
    parameters refer to the whole model.

    Example:
        >>> _ = ft.train_only(model, ft.select.head())
        >>> upper = ft.cache_features(model)
        >>> type(upper).__name__, upper.whole is model
        ('FeatureModel', True)
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; the tokenizers are those of the whole model."""
        if name in ("tokenizer", "target_tokenizer"):
            setattr(self.whole, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the whole model."""
        return self.whole.tokenizer

    @property
    def encoding_tokenizer(self) -> Any:
        """What encodes examples for the whole model."""
        return self.whole.encoding_tokenizer

    @property
    def target_tokenizer(self) -> Any:
        """The tokenizer of target texts of the whole model."""
        return self.whole.target_tokenizer

    @property
    def image_processor(self) -> Any:
        """What prepares images for the whole model."""
        return self.whole.image_processor

    def cached_features(self, encoded: Encoded, name: str) -> dict[str, Feature]:
        """The outputs of the frozen stages for encoded rows, computed unless they are stored.

        Args:
            encoded: From the model's task.
            name: The name of the examples, for messages.

        Returns:
            Features by the name of the input that each is for.

        Raises:
            ModelError: If a stage below the cut is trainable by now.
            CacheError: If rows change with each epoch, or there is too little space.
        """
        trunk, store = self._origin.trunk, self._origin.store
        if encoded.draw is not None:
            raise CacheError(
                f"{self.task.name} draws other rows in each epoch, so their features cannot be "
                "stored. Train the whole model."
            )
        self._origin.refuse_trainable_trunk()
        axes = {key: _axis_of(trunk, tensor, encoded) for key, tensor in trunk.output.items()}
        lengths = encoded.lengths
        ends = {axis: np.cumsum(of_axis) for axis, of_axis in lengths.items()}
        shapes = {}
        for key, tensor in trunk.output.items():
            axis = axes[key]
            inner = tensor.shape[1:] if axis is None else tensor.shape[2:]
            shapes[key] = (len(encoded) if axis is None else int(ends[axis][-1]), *inner)

        digests = {key: digests_of(feature.rows) for key, feature in encoded.inputs.items()}

        def compute(arrays: Arrays) -> None:
            rows = dataclasses.replace(encoded, targets=None)
            for part in self._origin.parts:
                # Rows that are equal for this part, such as several questions about an image.
                copies = equal_rows([digests[t.name] for t in part.inputs if t.name in digests])
                only = np.array(list(copies))
                for first, outputs in rows_of(part, rows, BATCH_SIZE, _outputs_alone, only=only):
                    for key, output in outputs.items():
                        for row in copies[first]:
                            if axes[key] is None:
                                arrays[key][row] = output
                            else:
                                end, length = ends[axes[key]][row], lengths[axes[key]][row]
                                arrays[key][end - length : end] = output[:length]

        config = {k: v for k, v in self.whole.config.items() if k not in DECISION_KEYS}
        key = self._origin.key(config, digests)
        arrays = store.get(key, shapes, f"Features of {name}", compute)
        return {
            key: Feature(
                StoredRows(array, ends.get(axes[key])),
                axis=axes[key],
                dtype=trunk.output[key].dtype,
            )
            for key, array in arrays.items()
        }

    def remember_features(self, batches: Any) -> None:
        """Remembers with which weights the features of batches were computed."""
        self._origin.remember(batches)

    def refuse_stale_features(self, batches: Any) -> None:
        """Raises a ModelError if the features of batches were computed with other weights."""
        self._origin.refuse_stale_features(batches)

    def _own_callbacks(self, given: list, initial_epoch: int) -> list:
        below = FollowTrainable(self._origin.trunk, self._origin.refuse_trainable_trunk)
        return [below, *super()._own_callbacks(given, initial_epoch)]

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Saves the whole model."""
        return self.whole.save_pretrained(folder, **options)

    def tower_rows(self, tower: str) -> keras.Model:
        """The rows of one of two towers of the whole model, from its inputs."""
        return self.whole.tower_rows(tower)

    def with_labels(self, *args: Any, **options: Any) -> FineTuneModel:
        """Returns the whole model for other labels."""
        return self.whole.with_labels(*args, **options)

    def push_to_hub(self, *args: Any, **options: Any) -> Any:
        """Saves and uploads the whole model."""
        return self.whole.push_to_hub(*args, **options)

    def export(self, *args: Any, **options: Any) -> Path:
        """Exports the whole model."""
        return self.whole.export(*args, **options)

    def resize_token_embeddings(self, size: int) -> None:
        """Resizes the vocabulary of the whole model."""
        check(size=size)
        self.whole.resize_token_embeddings(size)

    def generate(self, prompts: Any, max_new_tokens: int | None = None, **options: Any) -> list:
        """Generates with the whole model."""
        check(max_new_tokens=max_new_tokens)
        return self.whole.generate(prompts, max_new_tokens, **options)

    def _complete_inputs(self, inputs: Any) -> Any:
        wanted = [tensor.name for tensor in self.inputs]
        if hasattr(inputs, "keys") and not set(wanted) <= set(inputs.keys()):
            raise ModelError(
                f"This is the upper part of a model, which reads {', '.join(wanted)}, found "
                f"{', '.join(inputs)}. Make batches for it, and not for the whole model: "
                "train.batches(learner, …)."
            )
        return inputs

    def _parameters(self) -> tuple[int, int]:
        return count_parameters(self.whole)


class PlainFeatureModel(OnFeatures):
    """The upper part of any Functional model, which trains on features of the frozen stages below.

    `cache_features` makes it.
    """

    def features(self, inputs: Any, name: str = "the inputs") -> dict[str, np.ndarray]:
        """Converts inputs of the whole model to inputs of this one.

        Args:
            inputs: Arrays (rows, …) as the whole model takes them: one, a list in the order of its
                inputs, or a dict by their names.
            name: The name of the data, for messages.

        Returns:
            Arrays by the names of this model's inputs: the outputs of the frozen stages, computed
            unless they are stored, and the inputs that are needed besides.

        Raises:
            ModelError: If a stage below the cut is trainable by now.
            CacheError: If there is too little space.
        """
        trunk, store = self._origin.trunk, self._origin.store
        self._origin.refuse_trainable_trunk()
        names = [tensor.name for tensor in self.whole.inputs]
        if not isinstance(inputs, Mapping):
            inputs = dict(zip(names, keras.tree.flatten(inputs), strict=True))
        given = {key: np.asarray(inputs[key]) for key in names}
        below = {tensor.name: given[tensor.name] for tensor in trunk.inputs}
        rows = len(next(iter(below.values())))

        def batch(start: int) -> Arrays:
            part = {key: array[start : start + BATCH_SIZE] for key, array in below.items()}
            return keras.tree.map_structure(np.asarray, trunk.predict_on_batch(part))

        first = batch(0)

        def compute(arrays: Arrays) -> None:
            for start in range(0, rows, BATCH_SIZE):
                for key, output in (batch(start) if start else first).items():
                    arrays[key][start : start + BATCH_SIZE] = output

        shapes = {key: (rows, *output.shape[1:]) for key, output in first.items()}
        key = self._origin.key(None, {n: digests_of(array) for n, array in below.items()})
        cached = {
            key: array.astype(trunk.output[key].dtype, copy=False)
            for key, array in store.get(key, shapes, f"Features of {name}", compute).items()
        }
        for array in cached.values():
            self._origin.remember(array)
        values = {**given, **cached}
        return {tensor.name: values[tensor.name] for tensor in self.inputs}


def _axis_of(trunk: keras.Model, tensor: Any, encoded: Encoded) -> str | None:
    """The axis of rows along which an output of the trunk runs; None if its shape is fixed."""
    if None not in tensor.shape[1:]:
        return None
    source = input_followed_by(trunk, tensor)
    if source is None:
        raise CacheError(
            "The frozen stages compute a vector for each token of a source joined with its target, "
            "so that padding stands inside of a row, where it cannot be cut off. Freeze all stages "
            "below the head, ft.train_only(model, ft.select.head()), or train the whole model."
        )
    axes = {mask: axis for axis, mask in MASKS.items()}
    axes |= {name: feature.axis for name, feature in encoded.inputs.items()}
    if axes.get(source) is None or None in tensor.shape[2:]:
        raise CacheError(
            f"The frozen stages compute an array of shape {tensor.shape[1:]} for each row, whose "
            f"sizes do not follow from the input {source!r}, so it cannot be stored. Declare the "
            "shape of that input, or train the whole model."
        )
    return axes[source]


def _outputs_alone(outputs: Any, targets: Any) -> Any:
    return outputs
