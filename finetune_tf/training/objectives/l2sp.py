"""L2-SP: weight decay towards the pretrained weights (Li et al. 2018)."""

import hashlib
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.base.arguments import check
from finetune_tf.errors import ModelError
from finetune_tf.graph.digests import digest_of_values
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say
from finetune_tf.training.objectives.objective import Objective, Step, refuse
from finetune_tf.training.pretrained import is_from_scratch, pretrained_ids


@keras.saving.register_keras_serializable("finetune_tf")
class L2SP(Objective):
    """Penalizes the distance of trainable weights from their pretrained values.

    Adds alpha / 2 · ‖w − w₀‖² over the pretrained weights that are trained, and beta / 2 · ‖w‖²
    over the new ones, such as a head ("Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", Li et al. 2018). It replaces the weight decay of the optimizer, which
    pulls all weights towards 0: set `weight_decay=0.0`.

    The anchor w₀ takes as much memory as the weights that are trained. It is not part of `.keras`
    files: training of a model that was loaded from one has to be compiled with `anchor=`.

    Args:
        alpha: The factor for pretrained weights.
        beta: The factor for new weights.
        anchor: A model with the weights w₀, whose variables have the same paths; by default the
            values at `compile`.

    Example:
        >>> anchored = ft.objectives.L2SP(alpha=0.1, beta=0.01)
        >>> preset = ft.presets.cross_entropy(weight_decay=0.0, objectives=[anchored])
        >>> model.compile(**preset)
        >>> history = model.fit(train.batches(model, 5), verbose=0)
    """

    allows_packing = True
    joins_devices = True

    def __init__(
        self, alpha: float = 0.1, beta: float = 0.01, anchor: keras.Model | None = None
    ) -> None:
        check(**{"L2SP.alpha": alpha, "L2SP.beta": beta})
        self.alpha = float(alpha)
        self.beta = float(beta)
        self._given = None if anchor is None else {v.path: v for v in learnable_variables(anchor)}
        self._lost = False
        # The anchors of the variables of all models that have the objective, by their ids.
        self._anchors: dict[int, tuple[weakref.ref, Any]] = {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "L2SP":
        """Creates the objective for a model from a `.keras` file, without its anchor."""
        objective = cls(**config)
        objective._lost = True
        return objective

    def check(self, model: Any) -> None:
        """Stores the anchor, and checks that there are pretrained weights."""
        if self._lost:
            return
        if is_from_scratch(model):
            raise refuse(
                self,
                model,
                "its weights are random, so there is nothing to stay close to. Use weight_decay=.",
            )
        own = {id(variable) for variable in learnable_variables(model)}
        self._anchors = {
            key: (variable, anchor)
            for key, (variable, anchor) in self._anchors.items()
            if key not in own and variable() is not None
        }
        if self._given is None:
            fits = len(model.info.record.get("fits", ()))
            later = f", after earlier fits ({fits})" if fits else ""
            say(f"L2SP: the anchor is the weights at compile{later}.")
        self.prepare(model)

    def prepare(self, model: Any) -> None:
        """Stores the anchors of variables that are trained and have none yet."""
        if self._lost:
            raise ModelError(
                "L2SP has no anchor: the weights that it stays close to are not part of .keras "
                f"files. Compile again with L2SP({self.alpha:g}, {self.beta:g}, anchor=model), "
                f"where the model has them, such as ft.load({model.info.checkpoint!r}, …); "
                "compile(model.optimizer, …) keeps the state of the optimizer."
            )
        pretrained = pretrained_ids(model)
        for variable in model.trainable_variables:
            if id(variable) in pretrained and self._anchor_of(variable) is None:
                value = np.array(ops.convert_to_numpy(self._source(variable)), "float32")
                anchor = ops.convert_to_tensor(value)
                self._anchors[id(variable)] = weakref.ref(variable), anchor

    def _anchor_of(self, variable: keras.Variable) -> Any | None:
        known, anchor = self._anchors.get(id(variable), (None, None))
        return anchor if known is not None and known() is variable else None

    def _source(self, variable: keras.Variable) -> keras.Variable:
        if self._given is None:
            return variable
        found = self._given.get(variable.path)
        if found is None or found.shape != variable.shape:
            raise ModelError(
                f"The anchor of L2SP has no variable {variable.path} of shape {variable.shape}. "
                "Load it from the checkpoint that the model comes from."
            )
        return found

    def term(self, step: Step) -> Any:
        """Returns the penalty of all trainable variables."""
        total = 0.0
        for variable in step.model.trainable_variables:
            value = ops.cast(variable, "float32")
            anchor = self._anchor_of(variable)
            if anchor is not None:
                total += self.alpha / 2 * ops.sum(ops.square(value - anchor))
            elif self.beta:
                total += self.beta / 2 * ops.sum(ops.square(value))
        return total

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, with a hash of the anchor if one was given."""
        if self._given is None:
            return self.get_config()
        values = sorted(self._given.items())
        anchor = {path: digest_of_values(variable) for path, variable in values}
        digest = hashlib.blake2b(repr(anchor).encode(), digest_size=16).hexdigest()
        return {**self.get_config(), "anchor": digest}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, without the anchor."""
        return {"alpha": self.alpha, "beta": self.beta}
