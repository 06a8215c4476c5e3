"""A model class with sample weights and class weights for targets of any shape."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.keras_internals import set_loss_tracker
from finetune_tf.data.encodings import LABELS, targets_of, unwrapped, with_targets
from finetune_tf.errors import ModelError
from finetune_tf.model.places import PlacesModel
from finetune_tf.model.targets import are_shares, check_shape, check_type, checked_targets
from finetune_tf.tasks import Kind
from finetune_tf.training.classification import loss_of_shares
from finetune_tf.training.loss_mean import LossMean, counting, number_of_targets
from finetune_tf.training.outputs import fit_of, kind_of
from finetune_tf.training.sample_weights import (
    balanced_weights,
    by_class,
    check_weights,
    class_weights,
    spread,
    times,
)
from finetune_tf.training.similarity_loss import PairSimilarity


class WeightedModel(PlacesModel):
    """Applies sample weights and class weights in the same way for all tasks.

    The loss of a batch is Σ weight · loss / n, summed over its n targets; targets of -100 are
    ignored. The weight of a target is the product of its sample weight and its class weight:

    - a sample weight per text applies to all its targets: its tokens, or start and end of an
      answer;
    - sample weights per target have the shape of the targets, (batch, length) for tokens;
    - with several labels per text, the class weight of a label applies to the term of that label in
      every text, whether the label is assigned or not; n is the number of texts times labels;
    - with binary cross-entropy on a single output, the classes are 0 and 1;
    - pairs of texts for feature extraction have one sample weight each; see `PairSimilarity`.

    With weights of 1, this equals the loss without weights. For targets (batch,), it is the loss
    that Keras computes. PyTorch's `CrossEntropyLoss(weight=…)` divides by the sum of the class
    weights in the batch instead of n, so its loss and gradients differ by that factor.
    """

    # Class weights (classes,) during a fit and an evaluation.
    _train_class_weights: np.ndarray | None = None
    _test_class_weights: np.ndarray | None = None
    # Traced steps contain the class weights as constants, so they are traced again for others.
    _train_signature: "_TraceSignature | None" = None
    _test_signature: "_TraceSignature | None" = None

    @property
    def kind(self) -> Kind:
        """The kind of the outputs; see `training.outputs`."""
        return kind_of(self.task, self.loss)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Overrides Keras's `compile`: the loss of an epoch is the mean over its targets."""
        super().compile(*args, **kwargs)
        strategy = getattr(self, "distribute_strategy", None)  # JAX has none
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            set_loss_tracker(self, LossMean(name="loss"))

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Overrides Keras's `fit`: `class_weight` by index or name, or "balanced"."""
        weights, given = kwargs.get("sample_weight"), kwargs.pop("class_weight", None)
        held_out = kwargs.get("validation_split", 0.0)
        with self._class_weighting("train", given, x, y, weights, held_out):
            return super().fit(x, y, *args, **kwargs)

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, class_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Overrides Keras's `evaluate`; `class_weight` is as for `fit`."""
        with self._class_weighting("test", class_weight, x, y, kwargs.get("sample_weight")):
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Overrides Keras's `train_on_batch`; `class_weight` is as for `fit`."""
        with self._class_weighting("train", class_weight, x, y, sample_weight):
            return super().train_on_batch(x, y, sample_weight, return_dict=return_dict)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        class_weight: Any = None,
    ) -> Any:
        """Overrides Keras's `test_on_batch`; `class_weight` is as for `fit`."""
        with self._class_weighting("test", class_weight, x, y, sample_weight):
            return super().test_on_batch(x, y, sample_weight, return_dict=return_dict)

    def train_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        data = self._add_class_weights(data, self._train_class_weights)
        with counting(self._number_of_targets(data)):
            return super().train_step(*state, data)

    def test_step(self, *args: Any) -> Any:
        """Overrides the Keras hook; with JAX, the state precedes the data."""
        *state, data = args
        data = self._add_class_weights(data, self._test_class_weights)
        with counting(self._number_of_targets(data)):
            return super().test_step(*state, data)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Overrides the Keras hook.

        Raises:
            DataError: If the shapes of weights and targets do not fit together.
            ModelError: If there are weights per label, but the loss does not treat labels
                independently.
        """
        targets = targets_of(x, y)
        if targets is not None:
            check_shape(targets, y_pred, self.kind, self.loss)
        has_shares = targets is not None and are_shares(targets, y_pred, self.kind, self.loss)
        if targets is not None and not has_shares:
            check_type(targets, self.kind, self.loss)
        if sample_weight is not None and targets is not None:
            sample_weight = self._weights_per_term(sample_weight, targets, y_pred)
            if len(sample_weight.shape) == len(y_pred.shape):  # a weight for each label
                fit = fit_of(self.loss, self.kind)
                if fit is None or not fit.by_label:
                    raise ModelError(
                        "Weights per label need a loss that is computed for each label separately, "
                        "such as that of ft.presets.binary_cross_entropy()."
                    )
                y, y_pred = targets[..., None], y_pred[..., None]  # (batch, labels, 1)
        if has_shares:
            loss = loss_of_shares(self.loss)(targets, y_pred, sample_weight)
            return sum(map(ops.sum, self.losses), loss)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Overrides the Keras hook."""
        targets = targets_of(x, y)
        if sample_weight is not None and targets is not None:
            sample_weight = self._weights_per_term(sample_weight, targets, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _validated(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Returns inputs and targets after checking the values of targets and weights."""
        targets = targets_of(x, y)
        if hasattr(targets, "shape"):
            check_shape(targets, self.outputs[0], self.kind, self.loss)
            ids = x.get("input_ids") if hasattr(x, "keys") else x
            length = ops.shape(ids)[-1] if hasattr(ids, "shape") else None
            given = self.targets_of_texts(x, targets)
            found = self.checked_targets(given, length)
            if found is not given:
                x, y = with_targets(x, y, found)
            check_weights(weights, targets.shape[0])
        return x, y

    def checked_targets(self, targets: Any, length: Any = None) -> Any:
        """Checks the values of targets and converts class indices to int32.

        Args:
            targets: An array or a tensor; for a symbolic tensor, an assertion is added.
            length: The number of tokens of a row, a number or a tensor; None if it is unknown.

        Returns:
            The targets.

        Raises:
            DataError: If a value is outside of the range that the loss accepts.
        """
        shape = self.outputs[0].shape
        return checked_targets(targets, self.kind, self.task, self.loss, shape, length)

    def _weights_per_term(self, weights: Any, targets: Any, outputs: Any) -> Any:
        pairs = isinstance(self.loss, PairSimilarity)
        return spread(weights, targets, outputs, self.kind, pairs)

    def _number_of_targets(self, data: Any) -> Any:
        """See `loss_mean.number_of_targets`."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return number_of_targets(x, targets_of(x, y), self.outputs[0], self.kind, self.loss)

    def _add_class_weights(self, data: Any, weights: np.ndarray | None) -> Any:
        """Multiplies the sample weights of a batch by the class weights of its targets."""
        if weights is None:
            return data
        x, y, given = keras.utils.unpack_x_y_sample_weight(data)
        targets = targets_of(x, y)
        if targets is None:
            return data
        rank = len(self.outputs[0].shape) - 1
        combined = by_class(weights, targets, self.kind, rank)
        combined = combined if given is None else times(given, combined)
        return x, targets, combined

    @contextlib.contextmanager
    def _class_weighting(
        self, step: str, given: Any, x: Any, y: Any, sample_weight: Any, held_out: float = 0.0
    ) -> Iterator[None]:
        """Sets the class weights during a fit ("train") or an evaluation ("test")."""
        weights = None
        if isinstance(given, str) and given == "balanced":
            given = balanced_weights(x, y, self.kind, self.outputs[0].shape[-1], held_out)
        if given is not None:
            weights = class_weights(
                given,
                self.kind,
                self.task,
                self.outputs[0].shape[-1],
                lambda: self.tokenizer,
            )
        previous = getattr(self, f"_{step}_signature")
        ranks = _ranks(x, y, sample_weight)
        if previous is not None:  # a call without sample weights keeps traces of calls with them
            pairs = zip(ranks, previous.ranks, strict=True)
            ranks = tuple(old if new is None else new for new, old in pairs)
        signature = _TraceSignature(weights, ranks)
        if previous is not None and not previous.is_compatible_with(signature):
            setattr(self, f"{step}_function", None)
        setattr(self, f"_{step}_signature", signature)
        setattr(self, f"_{step}_class_weights", weights)
        try:
            yield
        finally:
            setattr(self, f"_{step}_class_weights", None)


@dataclass(frozen=True, eq=False)
class _TraceSignature:
    """The properties that a step was traced for.

    Attributes:
        class_weights: The class weights (classes,), or None.
        ranks: The ranks of the targets and of the sample weights, or None if there are none.
    """

    class_weights: np.ndarray | None
    ranks: tuple[int | None, ...]

    def is_compatible_with(self, other: "_TraceSignature") -> bool:
        """Returns whether a step traced for this signature can be used for another one.

        If ranks differ, TensorFlow would trace the step again with tensors of unknown rank.
        """
        for own, new in zip(self.ranks, other.ranks, strict=True):
            if None not in (own, new) and own != new:
                return False
        a, b = self.class_weights, other.class_weights
        return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _ranks(x: Any, y: Any, weights: Any) -> tuple[int | None, ...]:
    """Returns the ranks of targets and weights; None if there are none or they are unknown."""
    spec = getattr(x, "element_spec", None)
    if isinstance(spec, tuple):
        x, y, weights = (*spec, None, None)[:3]
    if y is None and hasattr(x, "keys"):
        y = next((x[name] for name in LABELS if name in x), None)
    return _rank(y), _rank(weights)


def _rank(value: Any) -> int | None:
    shape = getattr(unwrapped(value), "shape", None)
    return None if shape is None else shape.rank if hasattr(shape, "rank") else len(shape)
