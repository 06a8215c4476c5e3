"""A checkpoint folder, read: family, config, tensors, and how it was used so far."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import has_file, read_whole
from finetune_tf.checkpoints.hub import local_path, resolve
from finetune_tf.checkpoints.layouts import Modules, read_modules
from finetune_tf.checkpoints.tokenizers import TokenizerFiles
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.families.family import Family
from finetune_tf.families.registry import family_of
from finetune_tf.messages import say
from finetune_tf.weights.files import READERS, read_file, read_tensors
from finetune_tf.weights.tensors import Tensors, by_name

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """What `open_checkpoint` found.

    Attributes:
        folder: Where it lies.
        family: By its model_type.
        config: Complete.
        tensors: All, without task prefix; those of a Dense module of sentence-transformers
            under the name of the module.
        modules: What stands behind the transformer.
        generation: The content of its generation_config.json; empty without one.
        tokenizer_files: The tokenizer's files of the same version; None without a folder.
    """

    folder: Path
    family: Family
    config: dict
    tensors: Tensors
    modules: Modules
    tokenizer_files: TokenizerFiles | None = None
    generation: dict = field(default_factory=dict)


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
        complete = with_labels(family.complete(config))
        return Checkpoint(nowhere, family, complete, {}, Modules())
    file = local_path(name)
    is_file = file.suffix in READERS and os.path.isfile(file)
    folder = file.parent if is_file else resolve(name, revision, cache_dir)
    return read_whole(folder, lambda: _open(folder, file if is_file else None, replaced))


def _open(folder: Path, file: Path | None, replaced: dict[str, Any]) -> Checkpoint:
    """Reads a folder, or one file with weights and what stands beside it."""
    found = read_tensors(folder) if file is None else read_file(file)
    has_config = has_file(folder / "config.json")
    if file is not None and not replaced and not has_config:
        raise CheckpointError(
            f"{file} holds weights alone, and there is no config.json beside it: give its "
            "content as load(…, config=…)."
        )
    stored = read_json(folder / "config.json") if has_config else {}
    config = {**stored, **replaced}
    family = family_of(config, "config=" if "model_type" in replaced else folder / "config.json")
    where = [str(folder / "config.json")] * bool(stored) + ["config="] * bool(replaced)
    complete = with_labels(family.complete(config, " with ".join(where)))
    prefix = f"{family.tensor_prefix}."
    modules = read_modules(folder)
    named = [(key.removeprefix(prefix), tensor) for key, tensor in found.items()]
    tensors = by_name([*named, *modules.dense.items()])
    path = folder / GENERATION
    generation = read_json(path) if has_file(path) else {}
    files = TokenizerFiles.of(folder)
    return Checkpoint(folder, family, complete, tensors, modules, files, generation)


def with_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose id2label says what transformers reads from label2id or num_labels alone.

    Args:
        config: The content of config.json.

    Raises:
        CheckpointError: If label2id does not number its labels from 0 on.
    """
    config = dict(config)
    numbers, count = config.get("label2id"), config.get("num_labels")
    names = config.get("id2label")
    if not names and isinstance(numbers, dict) and numbers:
        if sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
            raise CheckpointError(
                "The config key 'label2id' numbers labels from 0 on without gaps, found "
                f"{list(numbers.values())}; or name them in 'id2label'."
            )
        config["id2label"] = {str(number): name for name, number in numbers.items()}
    elif not names and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(count)}
    elif isinstance(names, dict) and isinstance(numbers, dict) and numbers:
        told = {str(number): name for name, number in numbers.items()}
        if told != {str(number): name for number, name in names.items()}:
            say(
                "The config keys 'id2label' and 'label2id' contradict each other; id2label counts, "
                "as in transformers."
            )
    return config
