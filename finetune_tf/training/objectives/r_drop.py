"""R-Drop: two passes with different dropout have to agree (Liang et al. 2021)."""

from typing import Any

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.messages import warn
from finetune_tf.training.objectives.divergences import divergence
from finetune_tf.training.objectives.objective import Objective, Step, refuse

KINDS = ("classes", "several", "yes_no", "number")


@keras.saving.register_keras_serializable("finetune_tf")
class RDrop(Objective):
    """Computes each batch twice, with different dropout, and penalizes the difference.

    The loss is the mean of the plain losses of both passes, plus alpha times the symmetric
    Kullback-Leibler divergence of their outputs, (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)) / 2, averaged as the
    loss is ("R-Drop: Regularized Dropout for Neural Networks", Liang et al. 2021). In a regression,
    the squared difference takes the place of the divergence. A step takes about twice as long.

    Args:
        alpha: The factor of the divergence; the paper uses 0.1 to 5.

    Example:
        >>> model = ft.load(checkpoint, labels=train.labels, dropout=0.1)
        >>> model.compile(objectives=[ft.objectives.RDrop(alpha=1.0)])
        >>> history = model.fit(train.batches(model, 5), verbose=0)
    """

    copies = 2
    reads_outputs = True
    joins_devices = True

    def __init__(self, alpha: float = 1.0) -> None:
        check(**{"RDrop.alpha": alpha})
        self.alpha = float(alpha)

    def check(self, model: Any) -> None:
        """Checks the outputs of the model; warns if both passes would be the same."""
        if model.kind not in KINDS:
            raise refuse(
                self,
                model,
                "its loss compares the rows of a batch with each other, where each row would have "
                "a copy of itself. Leave it out.",
            )
        generators = (keras.random.SeedGenerator,)
        random = any(
            isinstance(value, generators)
            for layer in all_layers(model)
            if layer is not model
            for value in vars(layer).values()
        )
        if not random and not any(each.draws for each in model.objectives):
            warn(
                "RDrop compares two passes that differ by their dropout, but all dropout rates of "
                "the model are 0, so it has no effect: ft.load(…, dropout=0.1)."
            )

    def term(self, step: Step) -> Any:
        """Returns alpha times the mean divergence of the two passes."""
        rows = step.outputs.shape[0] or keras.ops.shape(step.outputs)[0]
        first, second = step.outputs[: rows // 2], step.outputs[rows // 2 :]
        of, to = (keras.ops.concatenate(pair) for pair in ((first, second), (second, first)))
        # Each row is compared with its copy and the other way round: the mean over all rows is
        # half of the sum of both divergences.
        return self.alpha * step.mean(divergence(of, to, step.kind))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"alpha": self.alpha}
