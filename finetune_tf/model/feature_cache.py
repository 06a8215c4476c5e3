"""The feature cache: what frozen stages compute is computed once, and the rest trains on it.

With the lower stages frozen, every epoch repeats the same forward pass through them. Its result
can be kept instead. Both halves share the model's weights, so when the upper one has been trained,
the model has been.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf._version import __version__
from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.feature_store import Arrays, FeatureStore, Precision
from finetune_tf.data.rows import StoredRows
from finetune_tf.errors import CacheError, ModelError
from finetune_tf.graph.pieces import input_followed_by
from finetune_tf.graph.splitting import split_model
from finetune_tf.graph.stages import require_model, stages
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.inference import rows_of
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import MASKS, Feature
from finetune_tf.training.callbacks import FollowTrainable
from finetune_tf.training.freezing import count_parameters

BATCH_SIZE = 64  # of the one pass through the frozen stages


@names_checked
def cache_features(
    model: keras.Model,
    folder: str | Path | None = None,
    precision: Precision | None = None,
) -> "FeatureModel | PlainFeatureModel":
    """Cuts a model above its frozen stages and keeps what these compute.

    What comes back is the rest of the model: a Keras model that is compiled, fitted and fed like
    the whole one, in a fraction of the time. The two share their weights.

        ft.train_only(model, ft.select.head())
        learner = ft.cache_features(model)
        learner.compile()
        learner.fit(train.batches(learner, 32, shuffle=True), epochs=10)
        ft.evaluate(model, test)

    The first `batches` of some examples runs the frozen stages over them, without dropout, and says
    how much room the result takes: one vector a text where texts are pooled below the cut, else one
    vector a token, without padding. It is kept under a hash of the token ids, of the frozen stages
    with their weights and config, and of the precision. So other data, another tokenizer,
    checkpoint or cut never meet features that are not theirs.

    A model of several chains is cut in each of them: of two towers either may be frozen, and a
    frozen encoder is stored below a decoder that learns.

    Any other Functional Keras model can be cut as well. It has no task that knows its data, so
    arrays are turned into those of the rest by `PlainFeatureModel.features`:

        learner = ft.cache_features(network)
        learner.compile("adam", "mse")
        learner.fit(learner.features(x), y)

    Args:
        model: A model whose lowest stages, at least those of one chain, are frozen.
        folder: Where to keep features from one run to the next, and where there are more than fit
            into memory; by default in memory.
        precision: "float32", or "bfloat16", which takes half the room and keeps three digits of
            each number. By default what the model computes in, so that nothing is lost.

    Returns:
        A `FeatureModel` of a model from `ft.load`, else a `PlainFeatureModel`.

    Raises:
        CacheError: If the lowest stages learn, nothing does, or the model has no graph.
        ModelError: If there is no such precision.
    """
    if precision not in (None, "float32", "bfloat16"):
        raise ModelError(f"Features are kept as 'float32' or 'bfloat16', found {precision!r}.")
    require_model(model)
    cut = split_model(model)
    if cut.blocking:
        say(
            f"{', '.join(cut.blocking)} learns and is used in several places, so frozen stages "
            "that read it are computed in every step and not stored."
        )
    if precision is None:
        narrow = all(tensor.dtype == "bfloat16" for tensor in cut.trunk.outputs)
        precision = "bfloat16" if narrow else "float32"
    kind = FeatureModel if isinstance(model, FineTuneModel) else PlainFeatureModel
    learner = kind(inputs=cut.inputs, outputs=cut.outputs, name=model.name)
    if isinstance(model, FineTuneModel):
        learner.info = model.info
    store = FeatureStore(folder and absolute(folder, CacheError), precision)
    learner._origin = _Origin(model, cut.trunk, store)
    return learner


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where a model on features comes from; Keras would count a model's attributes as its layers.

    Attributes:
        whole: The model that was cut.
        trunk: Its frozen part; the outputs are a dict.
        store: Keeps what the trunk computes.
    """

    whole: keras.Model
    trunk: keras.Model
    store: FeatureStore

    def refuse_learning_trunk(self) -> None:
        learning = [s.name for s in stages(self.trunk) if any(v.trainable for v in s.variables)]
        if learning:
            raise ModelError(
                f"{', '.join(learning)} learn by now, but are below the cut, where features are "
                "computed once. Freeze them, or cut again: ft.cache_features(model)."
            )

    def key(self, config: Any, features: Mapping[str, Sequence[np.ndarray]]) -> str:
        """A hash of all that stored features depend on.

        Args:
            config: Of the whole model, as far as it is not that of its layers.
            features: What goes in: one array a row, or one of all rows.
        """
        digest = hashlib.sha256()
        layers = [layer.get_config() for layer in self.trunk.layers]
        said = [__version__, self.store.precision, config, layers]
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
        for variable in self.trunk.weights:
            digest.update(np.ascontiguousarray(variable.numpy()))
        for name, rows in sorted(features.items()):
            rows = [rows] if isinstance(rows, np.ndarray) else rows
            digest.update(f"{name} {rows[0].dtype} {rows[0].shape[1:]}".encode())
            digest.update(np.cumsum([len(row) for row in rows]))
            digest.update(np.ascontiguousarray(np.concatenate(rows)))
        return digest.hexdigest()[:32]


class FeatureModel(FineTuneModel):
    """The stages of a model that learn, on stored features of those below.

    `cache_features` makes it. What is said about the model as a whole (saving, counting) is said
    of the one that it was cut from.
    """

    @property
    def whole(self) -> FineTuneModel:
        """The model that this one is the upper part of."""
        return self._origin.whole

    @property
    def tokenizer(self) -> Any:
        """Of the whole model."""
        return self.whole.tokenizer

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
        self._origin.refuse_learning_trunk()
        axes = {key: _axis_of(trunk, tensor, encoded) for key, tensor in trunk.output.items()}
        lengths = encoded.lengths
        ends = {axis: np.cumsum(of_axis) for axis, of_axis in lengths.items()}
        shapes = {}
        for key, tensor in trunk.output.items():
            axis = axes[key]
            inner = tensor.shape[1:] if axis is None else tensor.shape[2:]
            shapes[key] = (len(encoded) if axis is None else int(ends[axis][-1]), *inner)

        def compute(arrays: Arrays) -> None:
            rows = dataclasses.replace(encoded, targets=None)
            for row, outputs in rows_of(trunk, rows, BATCH_SIZE, _outputs_alone):
                for key, output in outputs.items():
                    if axes[key] is None:
                        arrays[key][row] = output
                    else:
                        end, length = ends[axes[key]][row], lengths[axes[key]][row]
                        arrays[key][end - length : end] = output[:length]

        inputs = {key: feature.rows for key, feature in encoded.inputs.items()}
        key = self._origin.key(self.whole.config, inputs)
        arrays = store.get(key, shapes, f"Features of {name}", compute)
        return {
            key: Feature(
                StoredRows(array, ends.get(axes[key])),
                axis=axes[key],
                dtype=trunk.output[key].dtype,
            )
            for key, array in arrays.items()
        }

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As of any model.

        Raises:
            ModelError: If a stage below the cut learns by now.
        """
        self._origin.refuse_learning_trunk()
        return super().fit(*args, **kwargs)

    def _own_callbacks(self, given: list, initial_epoch: int) -> list:
        below = FollowTrainable(self._origin.trunk, self._origin.refuse_learning_trunk)
        return [below, *super()._own_callbacks(given, initial_epoch)]

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Saves the whole model."""
        return self.whole.save_pretrained(folder, **options)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the whole model."""
        self.whole.save(*args, **kwargs)

    def _complete_inputs(self, inputs: Any) -> Any:
        return inputs  # `batches` gives exactly what is needed

    def _parameters(self) -> tuple[int, int]:
        return count_parameters(self.whole)


class PlainFeatureModel(keras.Model):
    """The stages of any Functional model that learn, on stored features of those below.

    `cache_features` makes it.
    """

    @property
    def whole(self) -> keras.Model:
        """The model that this one is the upper part of."""
        return self._origin.whole

    def features(self, inputs: Any, name: str = "the inputs") -> dict[str, np.ndarray]:
        """What this model takes in the place of the inputs of the whole one.

        Args:
            inputs: Arrays (rows, …) as the whole model takes them: one, a list in the order of its
                inputs, or a dict by their names.
            name: Of the data, for messages.

        Returns:
            Arrays by the names of this model's inputs: what the frozen stages compute, from the
            store if it is there, and those of the inputs that are needed beside it.

        Raises:
            ModelError: If a stage below the cut learns by now.
            CacheError: If there is too little room.
        """
        trunk, store = self._origin.trunk, self._origin.store
        self._origin.refuse_learning_trunk()
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
        key = self._origin.key(None, below)
        stored = {
            key: array.astype(trunk.output[key].dtype, copy=False)
            for key, array in store.get(key, shapes, f"Features of {name}", compute).items()
        }
        return {t.name: stored[t.name] if t.name in stored else given[t.name] for t in self.inputs}

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As of any model.

        Raises:
            ModelError: If a stage below the cut learns by now.
        """
        self._origin.refuse_learning_trunk()
        return super().fit(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the whole model."""
        self.whole.save(*args, **kwargs)


def _axis_of(trunk: keras.Model, tensor: Any, encoded: Encoded) -> str | None:
    """The axis of rows along which an output of the trunk runs; None if its shape is fixed."""
    if None not in tensor.shape[1:]:
        return None
    source = input_followed_by(trunk, tensor)
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
