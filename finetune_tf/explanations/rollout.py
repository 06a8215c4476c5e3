"""Attention rollout (Abnar and Zuidema 2020): where the attention of all layers comes from."""

import keras
import numpy as np

from finetune_tf.architectures import EncoderBlock
from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.base.keras_internals import graph_of
from finetune_tf.errors import ModelError
from finetune_tf.explanations.subject import Subject
from finetune_tf.graph.hidden_states import block_inputs
from finetune_tf.graph.pieces import ordered_nodes


def attention_rollout(subject: Subject) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Multiplies the attention weights of all blocks, each averaged with the residual.

    The weights are computed again from the inputs of the blocks, since the blocks themselves do not
    return them. The rows of the product are those of the tokens that the head reads, which are
    those whose last hidden state has a gradient.

    Args:
        subject: A row.

    Returns:
        The share of each token (length,), which add up to 1; and for a picture the rows and columns
        of its patches, which are the last tokens.

    Raises:
        ModelError: If the model has no attention among all tokens.
    """
    model = subject.cut.model
    nodes = [
        node for node in ordered_nodes(graph_of(model)) if isinstance(node.operation, EncoderBlock)
    ]
    if not nodes or {TEXT, IMAGE} <= set(subject.names):
        both = "two encoders" if nodes else "no blocks with attention among all tokens"
        raise ModelError(
            f"Attention rollout needs one encoder whose blocks all attend to the same tokens; "
            f"{model.name} has {both}. Use method='integrated-gradients'."
        )
    given = [block_inputs(node) for node in nodes]
    symbolic = [x for x in keras.tree.flatten(given) if isinstance(x, keras.KerasTensor)]
    symbolic = list({id(tensor): tensor for tensor in symbolic}.values())
    last = nodes[-1].output_tensors[0]
    known = subject.cut.run_with(subject.inputs, [*symbolic, last])
    values = {id(tensor): value for tensor, value in zip(symbolic, known, strict=False)}
    rollout = None
    for node, arguments in zip(nodes, given, strict=True):
        hidden, options = keras.tree.map_structure(lambda x: values.get(id(x), x), arguments)
        options = {k: v for k, v in options.items() if k in ("attention_mask", "positions")}
        weights = node.operation.attention_weights(hidden, **options)  # (1, heads, length, length)
        mean = np.asarray(keras.ops.cast(weights, "float32"))[0].mean(axis=0, dtype="float64")
        mixed = 0.5 * (mean + np.eye(len(mean)))
        rollout = mixed if rollout is None else mixed @ rollout
    hidden = np.asarray(keras.ops.cast(known[-1], "float32"))
    _, (gradients,) = subject.cut.gradients(subject.inputs, [hidden], subject.aim.index, [last])
    is_read = np.abs(gradients[0]).sum(axis=-1) > 0
    rows = rollout[: len(is_read)]  # the last block may be called with its first tokens alone
    of_tokens = rows[is_read].mean(axis=0) if is_read.any() else rows.mean(axis=0)
    return of_tokens, _grid(subject, len(of_tokens))


def _grid(subject: Subject, length: int) -> tuple[int, int] | None:
    if IMAGE not in subject.names:
        return None
    stage = next(s for s in subject.cut.model.stages if s.role == "embeddings")
    pixels = subject.cut.tensors[IMAGE]
    for layer in stage.layers:
        if hasattr(layer, "grid_of_shape"):
            rows, columns = layer.grid_of_shape(pixels.shape)
            if rows * columns + len(layer.special_names) == length:
                return rows, columns
    return None
