"""Differences between two outputs of models, for each kind of outputs."""

from typing import Any

from keras import ops

from finetune_tf.tasks import Kind


def divergence(of: Any, to: Any, kind: Kind, temperature: float = 1.0) -> Any:
    """Returns KL(of ‖ to) of the distributions that logits stand for.

    Args:
        of: Outputs of a model, (rows, …, classes).
        to: Outputs of another model, in the same shape.
        kind: The kind of the outputs. Numbers and vectors have no distribution: it is the mean of
            squared differences for them.
        temperature: What logits are divided by.

    Returns:
        In float32: a value for each class decision (rows, …); for several labels, one for each
        label (rows, labels); for numbers and vectors one for each row (rows,).

    Example:
        >>> from finetune_tf.training.objectives.divergences import divergence
        >>> of, to = np.array([[0.0, 0.0]]), np.log(np.array([[0.9, 0.1]]))
        >>> round(float(divergence(of, to, "classes")[0]), 4)
        0.5108
    """
    of, to = ops.cast(of, "float32"), ops.cast(to, "float32")
    if kind in ("number", "vectors"):
        return ops.mean(ops.square(of - to), axis=-1)
    of, to = of / temperature, to / temperature
    if kind == "classes":
        of, to = ops.log_softmax(of, axis=-1), ops.log_softmax(to, axis=-1)
        return ops.sum(ops.exp(of) * (of - to), axis=-1)
    yes = ops.sigmoid(of) * (ops.log_sigmoid(of) - ops.log_sigmoid(to))
    each = yes + ops.sigmoid(-of) * (ops.log_sigmoid(-of) - ops.log_sigmoid(-to))
    return each if kind == "several" else each[:, 0]
