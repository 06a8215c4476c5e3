"""The network of a learner: frozen stages that run once, and the rest, up to a vector for each row.

Shape legend: B rows, L tokens, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from finetune_tf.architectures import Pooling
from finetune_tf.base.keras_internals import all_layers, graph_of, mask_of
from finetune_tf.data import Examples
from finetune_tf.data.feature_store import FeatureStore
from finetune_tf.errors import CacheError, DataError, ModelError
from finetune_tf.graph.pieces import input_followed_by, learnable_variables, pieces
from finetune_tf.graph.splitting import FEATURES
from finetune_tf.graph.stages import require_model, stages
from finetune_tf.messages import say
from finetune_tf.meta.classes import arrays_of, name_of
from finetune_tf.model.feature_cache import cache_features
from finetune_tf.model.feature_models import FeatureModel, PlainFeatureModel
from finetune_tf.model.feature_origin import Origin
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.tasks.feature import MASKS, Feature

# The masks that belong to token ids: of finetune_tf, and of KerasHub.
_MASKS = {
    "input_ids": "attention_mask",
    "decoder_input_ids": "decoder_attention_mask",
    "token_ids": "padding_mask",
    "encoder_token_ids": "encoder_padding_mask",
    "decoder_token_ids": "decoder_padding_mask",
}


@dataclass(frozen=True, eq=False)
class Rows:
    """What a network reads of rows.

    Attributes:
        inputs: Features by the name of the input that each is for.
        masks: By name the axis of each attention mask that the network reads.
    """

    inputs: dict[str, Feature]
    masks: dict[str, str]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns rows as arrays (B, …) by name, padded to the longest of them."""
        lengths = {
            feature.axis: feature.lengths[rows]
            for feature in self.inputs.values()
            if feature.axis is not None
        }
        batch = {
            name: _padded(feature, rows, lengths.get(feature.axis))
            for name, feature in self.inputs.items()
        }
        for name, axis in self.masks.items():
            longest = np.arange(lengths[axis].max())
            batch[name] = (longest < lengths[axis][:, None]).astype("int32")
        return batch


def _padded(feature: Feature, rows: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    if feature.axis is None:
        if isinstance(feature.rows, np.ndarray):
            return feature.rows[rows].astype(feature.dtype, copy=False)
        return np.stack([np.asarray(feature.rows[int(row)]) for row in rows]).astype(feature.dtype)
    parts = [np.asarray(feature.rows[int(row)]) for row in rows]
    batch = np.full((len(rows), lengths.max(), *parts[0].shape[1:]), feature.padding, feature.dtype)
    for line, part in zip(batch, parts, strict=True):
        line[: len(part)] = part
    return batch


class Network:
    """A model without its head, split above the stages that are frozen.

    Args:
        model: A built Functional or Sequential model with stages.
        keep_head: Whether the head belongs to the network as well.

    Attributes:
        whole: The model.
        upper: The part that is computed for each batch. Its output is (B, D).
        variables: The trainable variables of `upper`, those that learners change.

    Raises:
        ModelError: If the model has no stages, or no single vector for each row.
    """

    def __init__(self, model: keras.Model, keep_head: bool = False) -> None:
        require_model(model)
        self.whole = getattr(model, "whole", model)  # of the upper part that caches features
        body = _body_of(self.whole, keep_head)
        self.upper = _split(body)
        self.variables = list(self.upper.trainable_variables)
        self._learned = _trainable_ids(body)
        self._body = body

    @property
    def features(self) -> int:
        """The number of features D."""
        return self.upper.output.shape[-1]

    def check_unchanged(self) -> None:
        """Checks that the same variables are trainable as when the network was split.

        Raises:
            ModelError: If others are.
        """
        if _trainable_ids(self._body) == self._learned:
            return
        below = getattr(self.upper, "_origin", None)
        learning = [] if below is None else [s.name for s in _learning_stages(below.trunk)]
        if learning:
            raise ModelError(
                f"{', '.join(learning)} became trainable after the learner was made, but its "
                "features are computed once and cached. Freeze it again, or make a new learner."
            )
        raise ModelError(
            "Other variables are trainable than when the learner was made. Make a new learner "
            "after ft.freeze or ft.train_only."
        )

    def rows_of(self, data: Any) -> Rows:
        """Converts data to inputs of the upper part; what frozen stages compute is cached.

        Args:
            data: `Examples` for a model from `load`; a pair (inputs, classes) of arrays otherwise.

        Raises:
            DataError: If the data do not fit the model.
            ModelError: If other variables are trainable than when the network was split.
        """
        self.check_unchanged()
        name = name_of(data)
        if isinstance(data, Examples):
            if not isinstance(self.whole, FineTuneModel):
                raise DataError(
                    f"{type(self.whole).__name__} {self.whole.name!r} is not a model from ft.load, "
                    "so nothing is known that prepares Examples for it. Pass a pair (inputs, "
                    "classes) of arrays."
                )
            return self._rows_of_features(self._encoded(data))
        return self._rows_of_arrays(data[0], name)

    def _encoded(self, data: Examples) -> dict[str, Feature]:
        encoded = data.encoded(self.whole, targets=False)
        if len(encoded) != len(data):
            raise DataError(
                f"The task {self.whole.task.name} makes {len(encoded):,} rows of the {len(data):,} "
                f"rows of {data.name}. Episodes need a task with one row for each example, such as "
                "a classification."
            )
        if hasattr(self.upper, "cached_features"):
            return encoded.inputs | self.upper.cached_features(encoded, data.name)
        return encoded.inputs

    def _rows_of_features(self, inputs: Mapping[str, Feature]) -> Rows:
        names = [tensor.name for tensor in self.upper.inputs]
        axes = {mask: axis for axis, mask in MASKS.items()}
        return Rows(
            {name: inputs[name] for name in names if name in inputs},
            {name: axes[name] for name in names if name not in inputs and name in axes},
        )

    def _rows_of_arrays(self, inputs: Any, name: str) -> Rows:
        tensors = self.whole.inputs
        if not isinstance(inputs, Mapping):
            arrays = arrays_of(inputs)
            if len(arrays) != len(tensors):
                raise DataError(
                    f"The model has {len(tensors)} inputs, found {len(arrays)} arrays. Pass a dict "
                    f"by their names: {', '.join(tensor.name for tensor in tensors)}."
                )
            inputs = {t.name: array for t, array in zip(tensors, arrays, strict=True)}
        for tensor in tensors:
            shape = np.shape(inputs.get(tensor.name))
            fits = len(shape) == len(tensor.shape) and all(
                expected in (None, found)
                for expected, found in zip(tensor.shape[1:], shape[1:], strict=True)
            )
            if not fits:
                raise DataError(
                    f"The model's input {tensor.name!r} has the shape {tuple(tensor.shape)}, found "
                    f"{shape} in {name}."
                )
        arrays = {t.name: np.asarray(inputs[t.name]).astype(t.dtype, copy=False) for t in tensors}
        if hasattr(self.upper, "cached_features"):
            raise DataError(
                "The frozen stages of a model from ft.load read Examples. Pass Examples instead of "
                "arrays."
            )
        if hasattr(self.upper, "features"):
            arrays = self.upper.features(arrays, name)
        names = {tensor.name for tensor in self.upper.inputs}
        return Rows({n: Feature.of_array(a) for n, a in arrays.items() if n in names}, {})


def _trainable_ids(body: keras.Model) -> set[int]:
    return {id(variable) for variable in learnable_variables(body) if variable.trainable}


def _learning_stages(model: keras.Model) -> list[Any]:
    return [stage for stage in stages(model) if any(v.trainable for v in stage.variables)]


def _body_of(model: keras.Model, keep_head: bool) -> keras.Model:
    """Returns the model up to the vector that its head reads, with inputs by name."""
    graph = graph_of(model)
    found = stages(model)
    if graph is None:
        raise ModelError(
            f"{type(model).__name__} {model.name!r} is a subclassed model without a graph, so it "
            "cannot be split into stages. Meta-learning needs a Functional or Sequential model, or "
            "one from ft.load."
        )
    head = [stage for stage in found if stage.role == "head" and not keep_head]
    tensor = _input_of_head(graph, head) if head else _output_of(graph)
    if head and not isinstance(model, FineTuneModel):
        names = ", ".join(stage.name for stage in head)
        say(
            f"{model.name}: {names} is taken for the head of other classes and left out; "
            f"keep_head=True keeps it."
        )
    tensor = _pooled(graph, tensor)
    kind = FineTuneModel if isinstance(model, FineTuneModel) else keras.Model
    body = kind(inputs={t.name: t for t in graph.inputs}, outputs=tensor, name=model.name)
    if kind is FineTuneModel:
        body.info = model.info
    return body


def _input_of_head(graph: keras.Model, head: list[Any]) -> Any:
    layers = {id(layer) for stage in head for layer in stage.layers}
    for piece in pieces(graph):
        if any(id(part) in layers for layer in piece.layers for part in all_layers(layer)):
            if len(piece.inputs) == 1:
                return piece.inputs[0]
            break
    raise ModelError(
        f"The head of {graph.name!r} ({', '.join(stage.name for stage in head)}) does not read one "
        "tensor, so there is no vector for each row to classify. Meta-learning needs a model of a "
        "single chain, such as an encoder or a classifier."
    )


def _output_of(graph: keras.Model) -> Any:
    if len(graph.outputs) != 1:
        raise ModelError(
            f"{graph.name!r} has {len(graph.outputs)} outputs; meta-learning needs one vector for "
            "each row. Make a keras.Model with one of them."
        )
    return graph.outputs[0]


def _pooled(graph: keras.Model, tensor: Any) -> Any:
    """Averages what is not a vector for each row: over tokens, without padding, or over pixels."""
    if tensor.shape.count(None) > 1 or len(tensor.shape) > 2:
        mask = _MASKS.get(input_followed_by(graph, tensor))
        given = [t for t in graph.inputs if t.name == mask and tensor.shape[1] != 1]
        if not given and len(tensor.shape) == 3 and mask_of(tensor) is not None:
            given = [mask_of(tensor)]  # such as of an embedding with mask_zero
        tensor = _TokenMean("mean", name="pooled_features")(tensor, *given)
    if len(tensor.shape) != 2 or tensor.shape[-1] is None:
        raise ModelError(
            f"{graph.name!r} computes an array of shape {tuple(tensor.shape)} for episodes; needed "
            "is a vector of a known number of features for each row."
        )
    return tensor


class _TokenMean(Pooling):
    """The mean over tokens, which takes the mask of Keras as an argument, so it ends there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_masking = True  # Keras would warn

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Returns None: a vector for each row has no mask."""


def _split(body: keras.Model) -> keras.Model:
    """Returns the part of a body above its frozen stages, which computes their outputs once."""
    if not _trainable_ids(body):
        return _all_frozen(body)
    try:
        return cache_features(body)
    except CacheError:  # the lowest stages are trainable
        return body


def _all_frozen(body: keras.Model) -> keras.Model:
    is_ours = isinstance(body, FineTuneModel)
    entry = keras.Input(body.output.shape[1:], name=FEATURES, dtype=body.output.dtype)
    outputs = keras.layers.Identity(name="features", dtype=body.output.dtype)(entry)
    upper = (FeatureModel if is_ours else PlainFeatureModel)(
        inputs={FEATURES: entry}, outputs=outputs, name=body.name
    )
    if is_ours:
        upper.info = body.info
    trunk = keras.Model(dict(body.input), {FEATURES: body.output}, name=f"{body.name}_trunk")
    upper._origin = Origin(body, trunk, FeatureStore(None, "float32"))
    return upper
