"""Opens a checkpoint: its family, config, tensors, modules and tokenizer files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.base.json_files import member, read_json
from finetune_tf.base.paths import has_file, read_whole
from finetune_tf.checkpoints.hub import check_has_revisions, local_path, resolve
from finetune_tf.checkpoints.layouts import Modules, read_modules
from finetune_tf.checkpoints.timm import is_timm, renamed, translated
from finetune_tf.checkpoints.tokenizers import TokenizerFiles
from finetune_tf.errors import CheckpointError, DataTypeError
from finetune_tf.families.family import Family
from finetune_tf.families.image_values import image_size
from finetune_tf.families.registry import family_of
from finetune_tf.images import PREPROCESSOR, ImageProcessor
from finetune_tf.messages import say
from finetune_tf.weights.files import READERS, read_file, read_tensors
from finetune_tf.weights.tensors import Tensors, by_name

GENERATION = "generation_config.json"
# In transformers 5 one file has the settings of tokenizer and image processor.
PROCESSOR = "processor_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint, whose weights are not read yet.

    Attributes:
        folder: The local folder.
        family: The family of its `model_type`.
        config: The complete config, including defaults.
        tensors: All tensors by name, without the prefix of task models. Tensors of a Dense module
            of sentence-transformers have the prefix "2_Dense".
        modules: The modules of sentence-transformers that follow the transformer.
        tokenizer_files: The tokenizer files of the same version; None if there is no folder.
        generation: The content of generation_config.json; empty if there is no such file.
        image_processor: What prepares images for it; None for models of texts.
    """

    folder: Path
    family: Family
    config: dict
    tensors: Tensors
    modules: Modules
    tokenizer_files: TokenizerFiles | None = None
    generation: dict = field(default_factory=dict)
    image_processor: ImageProcessor | None = None


def open_checkpoint(
    name: str | Path | Mapping[str, Any],
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Locates a checkpoint, downloads it if necessary, and reads everything but the weights.

    Args:
        name: A folder, a Hub id, a weight file, or the content of a config.json for a checkpoint
            without weights.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Folder for downloads; by default that of huggingface_hub.
        config: Values that override those of config.json.

    Raises:
        CheckpointError: If the checkpoint is not found, is damaged, or is not supported.
        DataTypeError: If `name` or `config` has another type.

    Example:
        >>> from finetune_tf.checkpoints import open_checkpoint
        >>> open_checkpoint(checkpoint).family.model_type
        'bert'
    """
    if not isinstance(name, str | Path | Mapping):
        raise DataTypeError(
            "A checkpoint is a folder, a Hub id, a file with weights, or the content of a "
            f"config.json as a dict; found {shown(name)}."
        )
    if config is not None and not isinstance(config, Mapping):
        raise DataTypeError(f"config is a dict of keys of config.json, found {shown(config)}.")
    overrides = dict(config or {})
    if isinstance(name, Mapping):
        config = {**name, **overrides}
        family = family_of(config, "The config")
        label = Path(f"a new {family.model_type} model")  # shown in messages as the folder
        complete = with_labels(family.complete(config))
        processor = _image_processor(None, family, complete)
        return Checkpoint(label, family, complete, {}, Modules(), image_processor=processor)
    file = local_path(name)
    is_file = file.suffix in READERS and os.path.isfile(file)
    if is_file:
        check_has_revisions(file, revision)
    folder = file.parent if is_file else resolve(name, revision, cache_dir)
    return read_whole(folder, lambda: _open(folder, file if is_file else None, overrides))


def _open(folder: Path, file: Path | None, overrides: dict[str, Any]) -> Checkpoint:
    """Opens a folder; if `file` is given, the weights are read from that file."""
    found = read_tensors(folder) if file is None else read_file(file)
    has_config = has_file(folder / "config.json")
    if file is not None and not overrides and not has_config:
        raise CheckpointError(
            f"{file} contains only weights, and there is no config.json next to it: pass its "
            "content as load(…, config=…)."
        )
    stored = read_json(folder / "config.json") if has_config else {}
    preprocessor = None
    if is_timm(stored):
        stored, found, preprocessor = translated(stored, found, folder / "config.json")
    config = {**stored, **overrides}
    family = family_of(config, "config=" if "model_type" in overrides else folder / "config.json")
    where = [str(folder / "config.json")] * bool(stored) + ["config="] * bool(overrides)
    complete = with_labels(family.complete(config, " with ".join(where)))
    found = renamed(found, family.model_type, folder / "config.json")
    prefix = f"{family.tensor_prefix}."
    modules = read_modules(folder)
    named = [(key.removeprefix(prefix), tensor) for key, tensor in found.items()]
    tensors = by_name([*named, *modules.dense.items()])
    complete = family.complete_from_weights(complete, tensors)
    path = folder / GENERATION
    generation = read_json(path) if has_file(path) else {}
    files = TokenizerFiles.read(folder)
    processor = _image_processor(folder, family, complete, preprocessor)
    return Checkpoint(folder, family, complete, tensors, modules, files, generation, processor)


def _image_processor(
    folder: Path | None,
    family: Family,
    config: dict[str, Any],
    stored: dict[str, Any] | None = None,
) -> ImageProcessor | None:
    """Reads preprocessor_config.json, or has the family's defaults at the size of the config.

    `stored` is the content of the file where another file of the checkpoint has the settings.
    """
    if family.image_processor is None:
        return None
    if stored is not None:
        where = str(folder / "config.json")
        return ImageProcessor.from_config(stored, family.image_processor, where)
    path = folder / PREPROCESSOR if folder else None
    if path is not None and has_file(path):
        return ImageProcessor.from_config(read_json(path), family.image_processor, str(path))
    both = folder / PROCESSOR if folder else None
    if both is not None and has_file(both):
        nested = member(read_json(both), "image_processor", dict, both, {})
        return ImageProcessor.from_config(nested, family.image_processor, str(both))
    processor = ImageProcessor.from_config({}, family.image_processor)
    size = image_size(config.get("vision_config", config))
    if path is not None:
        say(
            f"{folder} has no {PREPROCESSOR}, so images are prepared with the defaults of "
            f"{family.image_processor}."
        )
    return processor if size is None else processor.resized(size)


def with_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Derives a missing id2label from label2id or num_labels, as transformers does.

    Args:
        config: The content of config.json.

    Raises:
        CheckpointError: If label2id does not number its labels from 0 on without gaps.

    Example:
        >>> from finetune_tf.checkpoints.checkpoint import with_labels
        >>> with_labels({"label2id": {"no": 0, "yes": 1}})["id2label"]
        {'0': 'no', '1': 'yes'}
    """
    config = dict(config)
    numbers, count = config.get("label2id"), config.get("num_labels")
    names = config.get("id2label")
    if not names and isinstance(numbers, dict) and numbers:
        if sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
            raise CheckpointError(
                "The config key 'label2id' has to number the labels from 0 on without gaps, found "
                f"{list(numbers.values())}. Correct it, or define 'id2label' instead."
            )
        config["id2label"] = {str(number): name for name, number in numbers.items()}
    elif not names and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(count)}
    elif isinstance(names, dict) and isinstance(numbers, dict) and numbers:
        inverted = {str(number): name for name, number in numbers.items()}
        if inverted != {str(number): name for number, name in names.items()}:
            say(
                "The config keys 'id2label' and 'label2id' contradict each other; id2label is "
                "used, as in transformers."
            )
    return config
