"""`save_pretrained`: writes a model as a Hugging Face checkpoint, atomically."""

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from finetune_tf.adapters.attaching import active_names, names_of
from finetune_tf.adapters.merging import merged_values
from finetune_tf.base.arguments import bytes_of, check, shown
from finetune_tf.base.files import has_name_of, unfinished_folder
from finetune_tf.base.json_files import read_json, write_json
from finetune_tf.base.paths import absolute
from finetune_tf.checkpoints.card import model_card
from finetune_tf.checkpoints.checkpoint import GENERATION
from finetune_tf.checkpoints.layouts import Layout
from finetune_tf.checkpoints.tokenizers import TARGET_TOKENIZER, has_vocabulary
from finetune_tf.distribution.current import is_first, written_once
from finetune_tf.errors import ArgumentError, CheckpointError, FinetuneError, ModelError
from finetune_tf.families import FAMILIES, Family
from finetune_tf.images import PREPROCESSOR
from finetune_tf.messages import say
from finetune_tf.model.exports.format import RECORD, Record, digest_of
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import say_if_untrained, untrained_variables
from finetune_tf.weights.writing import WeightWriter

# Names of weight files, with "*" for any characters.
_WEIGHTS = ("tf_model*.h5*", "pytorch_model*.bin*", "model-*.safetensors", "model.safetensors*")
# Names of files and modules that an earlier save may have written to the folder.
_STALE = (*_WEIGHTS, "modules.json", "1_Pooling", "2_Dense", "2_Normalize")
_STALE += (GENERATION, TARGET_TOKENIZER, PREPROCESSOR)
# Names of files of tokenizers that are not always written. Those of an earlier one would be read
# with the new one.
_STALE_TOKENIZER = ("chat_template.*", "additional_chat_templates", "added_tokens.json")
_STALE_TOKENIZER += ("special_tokens_map.json",)
# Keys of a config that say nothing about the model.
_OF_FILES = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")
# The default maximum file size of transformers 4.
_SHARD = "5GB"


def opens_in(model: Any) -> str:
    """Returns the PyTorch class that loads the checkpoints of this model.

    If there is none, it is `finetune_tf.load`.
    """
    if not (model.task.is_in_transformers and _family(model).is_in_transformers(model.config)):
        return "finetune_tf.load"
    named = _head_class(model)
    if named is not None:
        return f"transformers.{named}" if named else "finetune_tf.load"
    return _layout(model).opens_in(_family(model), model.task.class_suffix)


def in_dtype(dtype: str) -> str:
    """Returns the suffix of messages about files whose dtype is not float32."""
    return "" if dtype == "float32" else f" in {dtype}"


def save_pretrained(
    model: Any,
    folder: str | Path,
    *,
    dtype: str | None = None,
    max_shard_size: int | str = _SHARD,
    **card: str,
) -> Path:
    """Writes config, weights, tokenizer and model card.

    The layout is that of transformers if it has a class for the model. A classifier with another
    pooling than that of its family, and models for text embeddings, are written as modules of
    sentence-transformers, whose `encode` returns the logits or the embeddings.

    Args:
        model: A FineTuneModel.
        folder: The folder, replaced atomically by a rename; it may be the one that the model was
            loaded from. Other files in it are kept. The current folder cannot be replaced.
        dtype: The dtype of the written weights: "float32", "float16" or "bfloat16"; by default that
            of the original checkpoint file, regardless of the dtype of the model.
        max_shard_size: Maximum size of a weight file in bytes, as a number or a text such as
            "500MB"; larger weights are split into several files with an index.
        **card: Additional lines of the model card.

    Returns:
        The absolute path of the folder.

    Raises:
        ArgumentError: If the dtype or the size is invalid, or a line of the model card is not a
            text, because then an option of another library was meant.
        CheckpointError: If the folder cannot be written, is a file, or is the current folder.
        ModelError: If a weight is NaN or infinite, or too large for `dtype`.
    """
    _check_card(card)
    weights = _make_writer(model, dtype, max_shard_size)
    folder = absolute(folder)
    tokenizers = tokenizers_of(model)  # read before their folder is replaced
    has_other_graph = _has_other_graph(model, folder)
    stale = (*_STALE, RECORD) if has_other_graph else _STALE
    stale += _STALE_TOKENIZER if tokenizers else ()
    with written_once(folder) as place, unfinished_folder(place, stale) as unfinished:
        _write_files(model, tokenizers, unfinished, weights, card)
    model.info.tokenizer = str(folder)
    if is_first():
        say_saved(model, folder, weights.dtype)
        if has_other_graph:
            say(
                f"{folder} has a graph with other weights, from an earlier export. It is kept for "
                "programs that run it, but ft.load_exported opens it no more: export the model "
                "again."
            )
    return folder


def _has_other_graph(model: Any, folder: Path) -> bool:
    """Whether the folder has a graph of `export` with other weights than those of the model."""
    if not os.path.isfile(folder / RECORD):
        return False
    try:
        return Record.read(folder).weights != digest_of(model)
    except CheckpointError:  # a damaged file
        return True


def say_saved(model: Any, folder: Path, dtype: str | None = None) -> None:
    """Prints what was saved, and whether its head is untrained.

    Args:
        model: A FineTuneModel.
        folder: The folder of the checkpoint.
        dtype: The dtype of the written weights; by default that of the original checkpoint file.
    """
    written = in_dtype(dtype or model.info.file_dtype)
    merged, apart = active_names(model), names_of(model)
    note = f"; adapters merged in: {', '.join(map(repr, merged))}" if merged else ""
    if apart := [name for name in apart if name not in merged]:
        note += f"; adapters left out: {', '.join(map(repr, apart))}"
    say(f"Saved {folder}{written}; opens in {opens_in(model)}{note}.")
    say_if_untrained(model)


def write_checkpoint(model: Any, folder: Path) -> None:
    """Writes the files of `save_pretrained` without making the folder atomic.

    Args:
        model: A FineTuneModel.
        folder: The folder, which is created and must not exist yet.
    """
    folder.mkdir()
    _write_files(model, tokenizers_of(model), folder, _make_writer(model), {})


def push_to_hub(model: Any, repo_id: str, private: bool | None, token: Any, **options: Any) -> Any:
    """Saves a model and uploads it with huggingface_hub, whose errors are not converted.

    Args:
        model: A FineTuneModel.
        repo_id: The repository, "owner/name", which is created if it does not exist.
        private: Whether a new repository is private.
        token: The access token; None for that of the login.
        **options: Options of `save_pretrained`.

    Returns:
        The commit information of huggingface_hub.
    """
    import huggingface_hub

    _make_writer(model, **options)  # wrong options are found before there is a repository
    api = huggingface_hub.HfApi(token=token)
    if is_first():
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = model.info.tokenizer
        saved = save_pretrained(model, Path(folder) / "model", **options)
        model.info.tokenizer = tokenizer  # the temporary folder will be deleted
        # Of several processes, all compute what is saved, and the first one uploads it.
        return api.upload_folder(repo_id=repo, folder_path=saved) if is_first() else None


def write_config(model: Any, folder: Path, dtype: str | None = None) -> None:
    """Writes config.json with the PyTorch class and the dtype of the weights.

    Args:
        model: A FineTuneModel.
        folder: The folder.
        dtype: The dtype of the weights; by default that of the original checkpoint file.
    """
    write_json(folder / "config.json", _config_of(model, dtype))


def check_same_checkpoint(model: Any, folder: Path) -> None:
    """Checks that a checkpoint in a folder, whose weights are kept, can have the config of a model.

    Args:
        model: A FineTuneModel.
        folder: The folder, which need not exist.

    Raises:
        ModelError: If the checkpoint is one of another model.
    """
    path = folder / "config.json"
    # Not `path.is_file()`, which raises an error if the name is too long.
    if not os.path.isfile(path) or not any(
        has_name_of(each.name, _WEIGHTS) for each in folder.iterdir()
    ):
        return
    before, after = read_json(path), json.loads(json.dumps(_config_of(model)))
    differing = [
        key for key in before if key in after and key not in _OF_FILES and before[key] != after[key]
    ]
    if differing:
        raise ModelError(
            f"{folder} has the checkpoint of another model, whose weights would get the config of "
            f"this one: config.json differs in {', '.join(map(repr, differing[:5]))}. Choose "
            "another folder, or save this model there first with save_pretrained."
        )


def _config_of(model: Any, dtype: str | None = None) -> dict[str, Any]:
    class_name = _head_class(model)
    class_name = class_name or _layout(model).class_name(_family(model), model.task.class_suffix)
    # Older versions of transformers named the key torch_dtype; current ones read both.
    keys = [key for key in ("dtype", "torch_dtype") if key in model.config] or ["dtype"]
    dtypes = dict.fromkeys(keys, dtype or model.info.file_dtype)
    return model.config | {"architectures": [class_name]} | dtypes


def _check_card(card: dict[str, Any]) -> None:
    """Rejects options of other libraries, which would become lines of the model card."""
    for name, line in card.items():
        if not isinstance(line, str) or "dtype" in name or "shard" in name:
            raise ArgumentError(
                f"save_pretrained has no option {name!r}. It has dtype and max_shard_size; other "
                "names are lines of the model card and must be texts, such as data='SST-2'; found "
                f"{name}={shown(line)}. To upload a model, use model.push_to_hub('owner/name')."
            )


def _make_writer(
    model: Any, dtype: str | None = None, max_shard_size: int | str = _SHARD
) -> WeightWriter:
    check(max_shard_size=max_shard_size)
    untrained = frozenset(variable.path for variable in untrained_variables(model))
    dtype = model.info.file_dtype if dtype is None else dtype
    return WeightWriter(dtype, bytes_of(max_shard_size), untrained, merged_values(model))


def _write_files(
    model: Any,
    tokenizers: dict[str, Any],
    folder: Path,
    weights: WeightWriter,
    card: dict[str, str],
) -> None:
    family = _family(model)
    refuse_ruined(model, "Saving")
    write_config(model, folder, weights.dtype)
    max_length = model.max_length if tokenizers else family.max_length(model.config)
    if model.info.image_processor:
        write_json(folder / PREPROCESSOR, model.info.image_processor)
    if model.info.generation:
        write_json(folder / GENERATION, model.info.generation)
    _layout(model).write(folder, model, family, weights, max_length)
    write_tokenizers(tokenizers, folder)
    text = model_card(model.info, opens_in(model), card, model.task)
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")


def tokenizers_of(model: Any) -> dict[str, Any]:
    """Returns the tokenizers of a model by the folders in its checkpoint that they are saved in.

    Prints a message and returns none if they cannot be read.

    Args:
        model: A FineTuneModel.
    """
    if model.task.preprocessor == "image_processor":
        return {}
    try:
        if model.tokenizer is None:
            return {}
        found = {"": _truncating(model.tokenizer, model.info.max_length)}
        if model.target_tokenizer is not model.tokenizer:
            found[TARGET_TOKENIZER] = model.target_tokenizer
        return found
    except FinetuneError as error:
        has_none = not has_vocabulary(Path(model.info.tokenizer))
        message = "The checkpoint has no tokenizer, so none is saved."
        say(message if has_none else f"No tokenizer is saved: {error}")
        return {}


def _truncating(tokenizer: Any, max_length: int | None) -> Any:
    """Returns a tokenizer that truncates as the model does, so that PyTorch reads the same."""
    if max_length is None or tokenizer.model_max_length <= max_length:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_length
    return tokenizer


def write_tokenizers(tokenizers: dict[str, Any], folder: Path) -> None:
    """Writes what `tokenizers_of` returned into a checkpoint."""
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / name)


def _head_class(model: Any) -> str | None:
    return _family(model).head(model.task.name, model.config).class_name


def _layout(model: Any) -> Layout:
    return model.task.layout(model.info.pooling)


def _family(model: Any) -> Family:
    return FAMILIES[model.config["model_type"]]
