"""Mixup of embeddings or of the vectors below the head (Zhang et al. 2018; Guo et al. 2019)."""

import functools
from typing import Any, Literal

import keras
from keras import ops

from finetune_tf.architectures import AttentionMask
from finetune_tf.base.arguments import check
from finetune_tf.errors import ModelError
from finetune_tf.graph.stages import stages
from finetune_tf.graph.taps import input_of_head, output_of_stage
from finetune_tf.tasks.feature import MASKS
from finetune_tf.training.objectives.objective import Objective, Step, refuse

_MASK = MASKS["tokens"]
_KINDS = ("classes", "several", "yes_no", "number")


@keras.saving.register_keras_serializable("finetune_tf")
class Mixup(Objective):
    """Trains on mixtures of two examples and of their labels.

    In each step, each example gets a random partner of its batch and a share from the distribution
    Beta(alpha, alpha) ("mixup: Beyond Empirical Risk Minimization", Zhang et al. 2018). The vectors
    of both are averaged with the shares, and so are the losses with the labels of both. Texts
    cannot be averaged, so the mixture is made of their embeddings, where the shorter text is padded
    with zeros, or of the vectors that the last layer reads ("Augmenting Data with Mixup for
    Sentence Classification", Guo et al. 2019).

    Metrics of a fit compare a mixture with the label that has the larger share, so the accuracy
    during training is lower than that of an evaluation.

    Args:
        alpha: The parameter of the distribution; small values make most mixtures nearly one of both
            examples.
        at: "embeddings", or "head" for the vectors that the last layer reads. The latter also works
            for cached features and for causal decoders.

    Example:
        >>> model.compile(objectives=[ft.objectives.Mixup(alpha=0.4)])
        >>> history = model.fit(train.batches(model, 5), verbose=0)
    """

    draws = True

    def __init__(
        self, alpha: float = 0.4, at: Literal["embeddings", "head"] = "embeddings"
    ) -> None:
        check(**{"Mixup.alpha": alpha})
        if at not in ("embeddings", "head"):
            raise ModelError(f"Mixup takes place at 'embeddings' or 'head', found {at!r}.")
        self.alpha = float(alpha)
        self.at = at

    def check(self, model: Any) -> None:
        """Checks that examples and labels of the model can be mixed."""
        if model.kind not in _KINDS or model.task.token_axis is not None:
            raise refuse(
                self,
                model,
                "it mixes whole examples, each with labels of its own. Use NEFTune or RDrop.",
            )
        others = [each for each in model.objectives if not each.allows_mixtures]
        if others:
            raise ModelError(
                f"Mixup trains on mixtures, but {type(others[0]).__name__} needs the examples "
                "themselves. Use one of both."
            )
        if self.at == "embeddings":
            self._check_embeddings(model)

    def _check_embeddings(self, model: Any) -> None:
        elsewhere = "Use Mixup(at='head')."
        found = [stage for stage in stages(model) if stage.role == "embeddings"]
        if not found and hasattr(model, "whole"):
            raise refuse(
                self, model, f"the embeddings are below the cut of cached features. {elsewhere}"
            )
        if len(found) != 1 or len({stage.chain for stage in stages(model) if stage.chain}) > 1:
            raise refuse(self, model, f"it has {len(found)} stages of embeddings. {elsewhere}")
        if any(isinstance(layer, AttentionMask) and layer.causal for layer in model.layers):
            raise refuse(
                self,
                model,
                "the last token of one text does not see the end of a longer one with which it is "
                f"mixed. {elsewhere}",
            )

    def before(self, step: Step) -> None:
        """Mixes the rows where the objective says."""
        if self.at == "head":
            place, mask = input_of_head(step.model), None
        else:
            (stage,) = (stage for stage in stages(step.model) if stage.role == "embeddings")
            place, mask = output_of_stage(step.model, stage), step.input(_MASK)
        if mask is not None:  # a mixture is as long as the longer text
            (symbolic,) = (tensor for tensor in step.model.inputs if tensor.name == _MASK)
            step.taps.change(symbolic, functools.partial(self._longer, step))
        step.taps.change(place, functools.partial(self._mixed, step, mask))

    def _partners(self, step: Step, rows: Any) -> tuple[Any, Any]:
        """Returns the partner of each row (rows,), and the share that the row itself keeps."""
        if self not in step.notes:
            examples = rows // step.copies
            partners = keras.random.shuffle(ops.arange(examples), seed=step.seed)
            share = keras.random.beta((examples,), self.alpha, self.alpha, seed=step.seed)
            # A pair of examples and its swap are equally likely. The larger share decides which of
            # both metrics compare with.
            share = ops.maximum(share, 1.0 - share)
            copies = [partners + examples * copy for copy in range(step.copies)]
            step.notes[self] = ops.concatenate(copies), step.repeated(share)
        return step.notes[self]

    def _longer(self, step: Step, mask: Any) -> Any:
        partners, _ = self._partners(step, ops.shape(mask)[0])
        return ops.maximum(mask, ops.take(mask, partners, axis=0))

    def _mixed(self, step: Step, mask: Any, vectors: Any) -> Any:
        partners, share = self._partners(step, ops.shape(vectors)[0])
        if mask is not None:
            vectors = vectors * ops.cast(step.repeated(mask), vectors.dtype)[:, :, None]
        share = ops.reshape(share, (-1,) + (1,) * (len(vectors.shape) - 1))
        share = ops.cast(share, vectors.dtype)
        return share * vectors + (1.0 - share) * ops.take(vectors, partners, axis=0)

    def rows(self, step: Step, targets: Any, outputs: Any, weights: Any) -> tuple[Any, Any, Any]:
        """Returns each row twice: with its own target, and with that of its partner."""
        partners, share = step.notes[self]
        if weights is None:
            weights = ops.ones_like(share)
        weights = ops.cast(weights, "float32")
        share = ops.reshape(share, (-1,) + (1,) * (len(weights.shape) - 1))
        both = [weights * share, ops.take(weights, partners, axis=0) * (1.0 - share)]
        # The loss of twice as many rows is divided by twice their number.
        is_sum = getattr(step.model.loss, "reduction", None) == "sum"
        weights = ops.concatenate(both) * (1.0 if is_sum else 2.0)
        targets = ops.concatenate([targets, ops.take(targets, partners, axis=0)])
        return targets, ops.concatenate([outputs, outputs]), weights

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"alpha": self.alpha, "at": self.at}
