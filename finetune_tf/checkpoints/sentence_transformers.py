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

from finetune_tf.checkpoints.config_values import OneOf, read_values, size
from finetune_tf.checkpoints.tensors import Tensors
from finetune_tf.checkpoints.weight_files import read_tensors
from finetune_tf.checkpoints.weights import linear
from finetune_tf.errors import CheckpointError
from finetune_tf.json_files import checked, file_inside, member, read_json
from finetune_tf.paths import has_file

_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_DENSE = "2_Dense"
_PACKAGE = "sentence_transformers"
# The file of the transformer's settings was once called after the family.
_SETTINGS_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
_SETTINGS = {
    "max_seq_length": size(2**31 - 1, also=(None,)),
    "do_lower_case": OneOf((True, False, None)),
}

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
        CheckpointError: If a file of them is damaged or missing, or the transformer lies in
            another folder.
    """
    listed = _listed(folder)
    paths = {kind: path for kind, path in reversed(listed) if path != folder}  # the first counts
    if "Transformer" in paths:
        raise CheckpointError(
            f"{folder / 'modules.json'} says that the transformer lies in {paths['Transformer']}, "
            f"but it is read from {folder}. Move the files of the transformer there and write "
            '"path": "" for it in modules.json.'
        )
    dense = paths.get("Dense", folder / _DENSE)
    has_dense = has_file(dense / "config.json")
    activation = _value(dense / "config.json", "activation_function", str, "")
    file = next((folder / name for name in _SETTINGS_FILES if has_file(folder / name)), None)
    settings = read_values(file, _SETTINGS) if file else {}
    general = folder / "config_sentence_transformers.json"
    prompts = _value(general, "prompts", dict, {})
    default = _value(general, "default_prompt_name", str, None)
    pooling = paths.get("Pooling", folder / "1_Pooling") / "config.json"
    for module in ("Pooling", "Dense"):
        if module in paths and not has_file(paths[module] / "config.json"):
            raise CheckpointError(
                f"{folder / 'modules.json'} names the {module} module "
                f"{str(paths[module].relative_to(folder))!r}, but there is no "
                f"{paths[module] / 'config.json'}. Get the whole checkpoint, or correct the name."
            )
    return Modules(
        pooling=_pooling(pooling),
        dense={f"{_DENSE}.{n}": t for n, t in read_tensors(dense).items()} if has_dense else {},
        activation=activation.rpartition(".")[2] or "Identity",
        normalize=any(kind == "Normalize" for kind, _ in listed),
        max_length=settings.get("max_seq_length"),
        types=tuple(kind for kind, _ in listed),
        prompt="" if default is None else member(prompts, default, str, general),
        lower_case=settings.get("do_lower_case", False),
    )


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """The modules of modules.json in order: the name of the class, and the folder.

    Of a class of sentence-transformers the name is its last part. Another package's class may have
    the same last part and compute something else.
    """
    file = folder / "modules.json"
    modules = []
    for entry in read_json(file, list) if has_file(file) else []:
        checked(entry, dict, f"An entry of {file}", CheckpointError)
        kind = member(entry, "type", str, file, "")
        package, _, rest = kind.partition(".")
        kind = rest.rpartition(".")[2] if package == _PACKAGE else kind
        path = file_inside(folder, member(entry, "path", str, file, ""), file)
        modules.append((kind, path))
    return modules


def _value(path: Path, key: str, kind: type, default: Any) -> Any:
    """The value of a key in a JSON file, or the default if one of them is not there."""
    return member(read_json(path), key, kind, path, default) if has_file(path) else default


def _pooling(path: Path) -> str | None:
    if not has_file(path):
        return None
    config = read_json(path)
    modes = member(config, "pooling_mode", (str, list), path, "") or [
        _MODES.get(key, key)
        for key in config
        if key.startswith("pooling_mode_") and member(config, key, bool, path, False)
    ]
    modes = [modes] if isinstance(modes, str) else modes
    return "+".join(
        checked(mode, str, f"A pooling mode of {path}", CheckpointError) for mode in modes
    )


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
