"""A model whose fit and evaluate weigh texts, targets and classes alike for every task."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.data.encodings import LABELS, targets_of, unwrapped, with_targets
from finetune_tf.errors import ModelError
from finetune_tf.model.encoding_model import EncodingModel
from finetune_tf.model.targets import check_shape, check_type, checked_targets
from finetune_tf.tasks import Kind
from finetune_tf.training.outputs import fit_of, kind_of
from finetune_tf.training.sample_weights import (
    by_class,
    check_weights,
    class_weights,
    spread,
    times,
)
from finetune_tf.training.similarity_loss import PairSimilarity


class WeightedModel(EncodingModel):
    """Weighs the terms of a loss in one way for all tasks.

    The loss of a batch is Σ weight · loss / n: the sum over all targets that count, where n is how
    many of them there are (those of -100 are left out). A weight is the product of the weight of
    the text, or of the target, and that of the target's class:

    - a weight per text is that of each of its targets, be these tokens or the ends of an answer;
    - weights per target have the shape of the targets: (batch, length) for tokens;
    - where several labels may be right, the weight of a label is that of its term in every text,
      whether it is right there or not; n counts texts and labels;
    - of one output with binary cross-entropy, the classes are 0 and 1;
    - pairs of feature extraction have one weight each; see `PairSimilarity`.

    With weights of 1 this is the loss without weights. It is what Keras computes for targets
    (batch,). PyTorch's `CrossEntropyLoss(weight=…)` divides by the sum of the class weights of a
    batch instead of n, so its loss, and the step it takes, differ by that factor.
    """

    # Weights of classes (classes,) during a fit and an evaluation.
    _train_class_weights: np.ndarray | None = None
    _test_class_weights: np.ndarray | None = None
    # What the steps were traced for, since a traced step holds its weights.
    _train_traced: "_Traced | None" = None
    _test_traced: "_Traced | None" = None

    @property
    def kind(self) -> Kind:
        """What the outputs are; see `training.outputs`."""
        return kind_of(self.task, self.loss)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's fit; `class_weight` by number or by name, and for targets of any shape."""
        weights = kwargs.get("sample_weight")
        with self._weighing("train", kwargs.pop("class_weight", None), x, y, weights):
            return super().fit(x, y, *args, **kwargs)

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, class_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Keras's evaluate; `class_weight` as for `fit`."""
        with self._weighing("test", class_weight, x, y, kwargs.get("sample_weight")):
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Keras's train_on_batch; `class_weight` as for `fit`."""
        with self._weighing("train", class_weight, x, y, sample_weight):
            return super().train_on_batch(x, y, sample_weight, return_dict=return_dict)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
        class_weight: Any = None,
    ) -> Any:
        """Keras's test_on_batch; `class_weight` as for `fit`."""
        with self._weighing("test", class_weight, x, y, sample_weight):
            return super().test_on_batch(x, y, sample_weight, return_dict=return_dict)

    def train_step(self, *args: Any) -> Any:
        """Keras's hook; with JAX the state comes first."""
        *state, data = args
        return super().train_step(*state, self._weighted(data, self._train_class_weights))

    def test_step(self, *args: Any) -> Any:
        """Keras's hook; with JAX the state comes first."""
        *state, data = args
        return super().test_step(*state, self._weighted(data, self._test_class_weights))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras's hook.

        Raises:
            DataError: If weights and targets do not fit together.
            ModelError: If labels are weighed and the loss is none that is known to add them up.
        """
        targets = targets_of(x, y)
        if targets is not None:
            check_shape(targets, y_pred, self.kind, self.loss)
            check_type(targets, self.kind, self.loss)
        if sample_weight is not None and targets is not None:
            sample_weight = self._spread(sample_weight, targets, y_pred)
            if len(sample_weight.shape) == len(y_pred.shape):  # a weight for each label
                fit = fit_of(self.loss, self.kind)
                if fit is None or not fit.by_label:
                    raise ModelError(
                        "Weights of labels need a loss that takes each label on its own, such as "
                        "that of ft.presets.binary_cross_entropy()."
                    )
                y, y_pred = targets[..., None], y_pred[..., None]  # (batch, labels, 1)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's hook."""
        targets = targets_of(x, y)
        if sample_weight is not None and targets is not None:
            sample_weight = self._spread(sample_weight, targets, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _checked(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Inputs and targets whose numbers are what they should be."""
        targets = targets_of(x, y)
        if hasattr(targets, "shape"):
            check_shape(targets, self.outputs[0], self.kind, self.loss)
            ids = x.get("input_ids") if hasattr(x, "keys") else x
            length = ops.shape(ids)[-1] if hasattr(ids, "shape") else None
            found = self.checked_targets(targets, length)
            if found is not targets:
                x, y = with_targets(x, y, found)
            check_weights(weights, targets.shape[0])
        return x, y

    def checked_targets(self, targets: Any, length: Any = None) -> Any:
        """Targets whose numbers are what the loss takes, class numbers as int32.

        Args:
            targets: An array or a tensor; one of a traced step gets an assertion.
            length: Tokens of a row, a tensor too; None where nobody knows.

        Raises:
            DataError: If a number is none that the loss takes.
        """
        shape = self.outputs[0].shape
        return checked_targets(targets, self.kind, self.task, self.loss, shape, length)

    def _spread(self, weights: Any, targets: Any, outputs: Any) -> Any:
        pairs = isinstance(self.loss, PairSimilarity)
        return spread(weights, targets, outputs, self.kind, pairs)

    def _weighted(self, data: Any, weights: np.ndarray | None) -> Any:
        """A batch with the weights of its targets' classes."""
        if weights is None:
            return data
        x, y, given = keras.utils.unpack_x_y_sample_weight(data)
        targets = targets_of(x, y)
        if targets is None:
            return data
        rank = len(self.outputs[0].shape) - 1
        found = by_class(weights, targets, self.kind, rank)
        found = found if given is None else times(given, found)
        return x, targets, found

    @contextlib.contextmanager
    def _weighing(
        self, step: str, given: Any, x: Any, y: Any, sample_weight: Any
    ) -> Iterator[None]:
        """Weighs classes during a fit ("train") or an evaluation ("test")."""
        weights = None
        if given is not None:
            weights = class_weights(
                given,
                self.kind,
                self.task,
                self.outputs[0].shape[-1],
                lambda: self.tokenizer,
            )
        before = getattr(self, f"_{step}_traced")
        ranks = _ranks(x, y, sample_weight)
        if before is not None:  # a step without weights leaves what was traced with them
            pairs = zip(ranks, before.ranks, strict=True)
            ranks = tuple(old if new is None else new for new, old in pairs)
        traced = _Traced(weights, ranks)
        if before is not None and not before.fits(traced):
            setattr(self, f"{step}_function", None)
        setattr(self, f"_{step}_traced", traced)
        setattr(self, f"_{step}_class_weights", weights)
        try:
            yield
        finally:
            setattr(self, f"_{step}_class_weights", None)


@dataclass(frozen=True, eq=False)
class _Traced:
    """What a step was traced for: class weights, and the ranks of a batch's targets and weights."""

    class_weights: np.ndarray | None
    ranks: tuple[int | None, ...]

    def fits(self, other: "_Traced") -> bool:
        """Whether a step for this one may be taken for another one.

        TensorFlow would go on with tensors of an unknown rank where this changes.
        """
        for own, new in zip(self.ranks, other.ranks, strict=True):
            if None not in (own, new) and own != new:
                return False
        one, two = self.class_weights, other.class_weights
        return one is two or (one is not None and two is not None and np.array_equal(one, two))


def _ranks(x: Any, y: Any, weights: Any) -> tuple[int | None, ...]:
    """How many axes targets and weights have; None where there are none or nobody knows."""
    spec = getattr(x, "element_spec", None)
    if isinstance(spec, tuple):
        x, y, weights = (*spec, None, None)[:3]
    if y is None and hasattr(x, "keys"):
        y = next((x[name] for name in LABELS if name in x), None)
    return _rank(y), _rank(weights)


def _rank(value: Any) -> int | None:
    shape = getattr(unwrapped(value), "shape", None)
    return None if shape is None else shape.rank if hasattr(shape, "rank") else len(shape)
