"""The module layout of sentence-transformers: transformer, pooling, dense.

Read to learn which pooling a checkpoint was trained with, and written for classifiers on a
pooling that no `…ForSequenceClassification` of PyTorch has. The keys and module paths written
are the old ones, which every release from 2 to 6 understands.
"""

from pathlib import Path

import numpy as np

from finetune_tf.checkpoints.tensors import Tensors, read_json, read_tensors
from finetune_tf.errors import CheckpointError

_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


def read_pooling(folder: Path) -> str | None:
    """The pooling a checkpoint was trained with: "cls", "mean", another mode's name, or None."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    modes = config.get("pooling_mode") or [
        _MODES.get(key, key)
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    return modes[0] if len(modes) == 1 else "+".join(modes)


def read_dense(folder: Path) -> Tensors:
    """The tensors of a linear Dense module on the pooling, as "classifier.…"; else none.

    Raises:
        CheckpointError: If the module has an activation, which would change the logits.
    """
    path = folder / "2_Dense"
    if not (path / "config.json").is_file():
        return {}
    activation = read_json(path / "config.json").get("activation_function", "")
    if not activation.endswith("Identity"):
        raise CheckpointError(
            f"{path} ends in the activation {activation!r}; a head that gives logits has Identity. "
            "Replace the head with load(…, new_head=True)."
        )
    return {
        name.replace("linear.", "classifier."): tensor
        for name, tensor in read_tensors(path).items()
    }


def modules(pooling: str, kernel: np.ndarray, bias: np.ndarray, max_length: int) -> dict:
    """The files that turn a bare transformer folder into pooling plus classifier.

    Args:
        pooling: "cls" or "mean".
        kernel: (labels, features), as PyTorch stores it.
        bias: (labels,).
        max_length: Tokens a text is cut to.

    Returns:
        Relative path to content: JSON values, or a dict of arrays for a safetensors file.
    """
    size = kernel.shape[1]
    names = ("Transformer", "Pooling", "Dense")
    paths = ("", "1_Pooling", "2_Dense")
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(zip(names, paths, strict=True))
        ],
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "2_Dense/config.json": {
            "in_features": size,
            "out_features": len(bias),
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        "2_Dense/model.safetensors": {"linear.weight": kernel, "linear.bias": bias},
    }
