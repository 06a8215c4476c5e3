"""The module layout of sentence-transformers: transformer, pooling, and what follows.

Read to learn how a checkpoint's vectors were made, and written for models that no class of
PyTorch's transformers can hold: classifiers on another pooling than the family's own, and
embeddings of texts. The keys and module paths written are the old ones, which every release from
2 to 6 understands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.checkpoints.tensors import Tensors, read_tensors
from finetune_tf.checkpoints.weights import linear
from finetune_tf.json_files import read_json

_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_DENSE = "2_Dense"

#: Rows of a linear Dense module that is a classifier here.
DENSE = linear(f"{_DENSE}.linear", "classifier/dense")


@dataclass(frozen=True)
class Modules:
    """What stands behind the transformer.

    Attributes:
        pooling: "cls", "mean", another mode's name, or None if nothing says it.
        dense: Tensors of a Dense module, by `DENSE`'s names; empty without one.
        activation: Of the Dense module: the last part of the PyTorch class, such as "Identity".
        normalize: Whether vectors are scaled to the length 1.
        max_length: Tokens a text was cut to, or None.
        types: The modules in order, as the last parts of their class names; empty where no list
            of them is there.
        prompt: What is put before each text; empty for nothing.
        lower_case: Whether texts are put into lower case before the tokenizer sees them.
    """

    pooling: str | None = None
    dense: Tensors = field(default_factory=dict)
    activation: str = "Identity"
    normalize: bool = False
    max_length: int | None = None
    types: tuple[str, ...] = ()
    prompt: str = ""
    lower_case: bool = False


def read_modules(folder: Path) -> Modules:
    """Reads what a checkpoint folder says of its modules.

    Raises:
        CheckpointError: If a file of them is damaged.
    """
    dense = folder / _DENSE
    has_dense = (dense / "config.json").is_file()
    activation = (
        read_json(dense / "config.json").get("activation_function", "") if has_dense else ""
    )
    listed = folder / "modules.json"
    types = (
        [module.get("type", "") for module in read_json(listed, list)] if listed.is_file() else []
    )
    settings = _read_if_there(folder / "sentence_bert_config.json")
    general = _read_if_there(folder / "config_sentence_transformers.json")
    default = general.get("default_prompt_name")
    return Modules(
        pooling=_pooling(folder / "1_Pooling" / "config.json"),
        dense={f"{_DENSE}.{n}": t for n, t in read_tensors(dense).items()} if has_dense else {},
        activation=activation.rpartition(".")[2] or "Identity",
        normalize=any(name.endswith("Normalize") for name in types),
        max_length=settings.get("max_seq_length"),
        types=tuple(name.rpartition(".")[2] for name in types),
        prompt=(general.get("prompts") or {}).get(default, ""),
        lower_case=bool(settings.get("do_lower_case")),
    )


def _read_if_there(path: Path) -> dict:
    return read_json(path) if path.is_file() else {}


def _pooling(path: Path) -> str | None:
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


def module_files(
    pooling: str,
    size: int,
    max_length: int,
    dense: Mapping[str, np.ndarray] | None = None,
    normalize: bool = False,
) -> dict[str, Any]:
    """The files that turn a bare transformer folder into one that gives vectors or logits.

    Args:
        pooling: "cls" or "mean".
        size: Features of a token.
        max_length: Tokens a text is cut to.
        dense: Kernel (labels, features) and bias (labels,) of a classifier, by `DENSE`'s names.
        normalize: Whether vectors are scaled to the length 1.

    Returns:
        Relative path to content: JSON values, or a dict of arrays for a safetensors file.
    """
    steps = {"": "Transformer", "1_Pooling": "Pooling"}
    files: dict[str, Any] = {
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }
    if dense is not None:
        steps[_DENSE] = "Dense"
        files[f"{_DENSE}/model.safetensors"] = {
            name.removeprefix(f"{_DENSE}."): tensor for name, tensor in dense.items()
        }
        files[f"{_DENSE}/config.json"] = {
            "in_features": size,
            "out_features": len(dense[f"{_DENSE}.linear.bias"]),
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    if normalize:
        steps["2_Normalize"] = "Normalize"
    files["modules.json"] = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(steps.items())
    ]
    return files
