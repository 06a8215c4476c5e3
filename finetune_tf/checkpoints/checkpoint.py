"""A checkpoint folder, read: family, config, tensors, and how it was used so far."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.arguments import shown
from finetune_tf.checkpoints.family import Family
from finetune_tf.checkpoints.hub import local_path, resolve
from finetune_tf.checkpoints.registry import family_of
from finetune_tf.checkpoints.sentence_transformers import Modules, read_modules
from finetune_tf.checkpoints.tensors import Tensors, by_name
from finetune_tf.checkpoints.weight_files import READERS, read_file, read_tensors
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.json_files import read_json


@dataclass(frozen=True)
class Checkpoint:
    """What `open_checkpoint` found.

    Attributes:
        folder: Where it lies.
        family: By its model_type.
        config: Complete.
        tensors: All, without task prefix; those of a Dense module of sentence-transformers
            under the name of the module.
        modules: What sentence-transformers does behind the transformer.
    """

    folder: Path
    family: Family
    config: dict
    tensors: Tensors
    modules: Modules


def open_checkpoint(
    name: str | Path | Mapping[str, Any],
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Finds a checkpoint and reads all of it but the weights' values.

    Args:
        name: A folder, a Hub id, a file with weights, or the content of a config.json: a
            checkpoint without weights.
        revision: On the Hub.
        cache_dir: Where downloads are kept.
        config: Keys that replace those of config.json.

    Raises:
        CheckpointError: If it cannot be had, is damaged, or is of an unsupported kind.
        DataTypeError: If `name` or `config` is of another type.
    """
    if not isinstance(name, str | Path | Mapping):
        raise DataTypeError(
            "A checkpoint is a folder, a Hub id, a file with weights, or the content of a "
            f"config.json as a dict; found {shown(name)}."
        )
    if config is not None and not isinstance(config, Mapping):
        raise DataTypeError(f"config is a dict of keys of config.json, found {shown(config)}.")
    replaced = dict(config or {})
    if isinstance(name, Mapping):
        config = {**name, **replaced}
        family = family_of(config, "The config")
        nowhere = Path(f"a new {family.model_type} model")
        return Checkpoint(nowhere, family, family.complete(config), {}, Modules())
    file = local_path(name)
    if file.suffix in READERS and os.path.isfile(file):
        folder, found = file.parent, read_file(file)
        if not replaced and not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{file} holds weights alone, and there is no config.json beside it: give its "
                "content as load(…, config=…)."
            )
    else:
        folder = resolve(name, revision, cache_dir)
        found = read_tensors(folder)
    stored = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    config = {**stored, **replaced}
    family = family_of(config, "config=" if "model_type" in replaced else folder / "config.json")
    where = [str(folder / "config.json")] * bool(stored) + ["config="] * bool(replaced)
    complete = family.complete(config, " with ".join(where))
    prefix = f"{family.tensor_prefix}."
    modules = read_modules(folder)
    named = [(key.removeprefix(prefix), tensor) for key, tensor in found.items()]
    tensors = by_name([*named, *modules.dense.items()])
    return Checkpoint(folder, family, complete, tensors, modules)
