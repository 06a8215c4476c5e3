"""NEFTune: noise on the embeddings of tokens (Jain et al. 2023)."""

import functools
from typing import Any

import keras
from keras import ops

from finetune_tf.architectures import Embeddings
from finetune_tf.base.arguments import check
from finetune_tf.graph.taps import calls_of_embeddings
from finetune_tf.tasks.feature import MASKS, POSITIONS
from finetune_tf.training.objectives.objective import Objective, Step, refuse

#: The attention mask of each input with token ids.
_MASK_OF = {"input_ids": MASKS["tokens"], "decoder_input_ids": MASKS["target_tokens"]}
_LAYERS = (Embeddings, keras.layers.Embedding)


@keras.saving.register_keras_serializable("finetune_tf")
class NEFTune(Objective):
    """Adds uniform noise to the embeddings of the tokens in each training step.

    The noise is uniform in ±alpha / √(L · D) for a text of L tokens, padding and other texts of a
    packed row excluded, and vectors of size D ("NEFTune: Noisy Embeddings Improve Instruction
    Finetuning", Jain et al. 2023). It is added to the rows of the token embedding table, before
    positions and normalization. The trainers of transformers and TRL (`neftune_noise_alpha`) add it
    at the same place, but count all tokens of a row in L. An encoder-decoder gets noise on both
    sides.

    Args:
        alpha: The size of the noise; the paper uses 5, 10 and 15.

    Example:
        >>> model.compile(objectives=[ft.objectives.NEFTune(alpha=5.0)])
        >>> history = model.fit(train.batches(model, 5), verbose=0)
    """

    draws = True
    joins_devices = True

    def __init__(self, alpha: float = 5.0) -> None:
        check(**{"NEFTune.alpha": alpha})
        self.alpha = float(alpha)

    def check(self, model: Any) -> None:
        """Checks that the model embeds tokens in each step."""
        if calls_of_embeddings(model, _LAYERS):
            return
        if hasattr(model, "whole"):
            reason = (
                "the embeddings are below the cut, where features are computed once. Train the "
                "whole model, or use another objective."
            )
        elif model.reads_texts:
            reason = "it embeds sources joined with their targets. Leave it out."
        else:
            reason = "it reads no tokens. For images, use augment= of batches."
        raise refuse(self, model, reason)

    def before(self, step: Step) -> None:
        """Adds noise where tokens are looked up."""
        for node, name in calls_of_embeddings(step.model, _LAYERS):
            mask = step.input(_MASK_OF.get(name, ""))
            noisy = functools.partial(self._noisy, step, mask)
            if isinstance(node.operation, Embeddings):
                step.taps.call_with(node, perturb=noisy)
            else:
                step.taps.change(node.output_tensors[0], noisy)

    def _noisy(self, step: Step, mask: Any, vectors: Any) -> Any:
        """Returns the vectors of tokens (B, L, D) with noise."""
        shape = ops.shape(vectors)
        noise = keras.random.uniform(shape, -1.0, 1.0, dtype="float32", seed=step.seed)
        if mask is None:
            length = ops.cast(shape[1], "float32")
        else:
            mask = ops.cast(step.repeated(mask), "float32")
            length = _lengths(mask, step.repeated(step.input(POSITIONS)))
            noise = noise * mask[:, :, None]
        size = self.alpha / ops.sqrt(length * float(vectors.shape[-1]))
        return vectors + ops.cast(noise * size, vectors.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"alpha": self.alpha}


def _lengths(mask: Any, positions: Any) -> Any:
    """The number of tokens of the text of each token: (B, 1, 1), or (B, L, 1) for packed rows.

    Args:
        mask: (B, L), 1 for tokens and 0 for padding.
        positions: (B, L), which count from 0 in each text of a packed row; None for other rows.
    """
    if positions is None:
        return ops.maximum(ops.sum(mask, axis=1), 1.0)[:, None, None]
    texts = ops.cumsum(ops.cast(ops.equal(positions, 0), "int32"), axis=1)
    same = ops.equal(texts[:, :, None], texts[:, None, :])  # (B, L, L)
    return ops.sum(ops.cast(same, "float32"), axis=2)[:, :, None]
