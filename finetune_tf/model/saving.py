"""`save_pretrained`: a model as a Hugging Face folder, whole or not at all."""

import tempfile
from pathlib import Path
from typing import Any

from finetune_tf.base.arguments import bytes_of, check, shown
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.json_files import write_json
from finetune_tf.base.paths import absolute
from finetune_tf.checkpoints.card import model_card
from finetune_tf.checkpoints.layouts import Layout
from finetune_tf.checkpoints.tokenizers import has_vocabulary
from finetune_tf.errors import ArgumentError, FinetuneError
from finetune_tf.families import FAMILIES, Family
from finetune_tf.messages import say
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import say_if_untrained, untrained_variables
from finetune_tf.weights.writing import WeightWriter

# Older weights, and modules that a model saved there before may have had.
_STALE = ("tf_model", "pytorch_model", "model-", "model.safetensors", "modules.json")
_STALE += ("1_Pooling", "2_Dense", "2_Normalize")
# What transformers 4 wrote into one file at most.
_SHARD = "5GB"


def opens_in(model: Any) -> str:
    """The PyTorch class that opens what `save_pretrained` writes for this model."""
    return _layout(model).opens_in(_family(model), model.task.class_suffix)


def in_dtype(dtype: str) -> str:
    """What lines about a file add where its type of numbers is not float32."""
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

    A model that PyTorch's transformers has a class for is saved for it; a classifier on another
    pooling than the family's own, and embeddings of texts, as modules of sentence-transformers,
    whose `encode` then gives the logits or the embeddings.

    Args:
        model: A FineTuneModel.
        folder: Replaced as a whole, with one rename; it may be the one the model came from.
            Other files that stand in it are kept. The current folder cannot be replaced.
        dtype: Type of numbers of the written weights: "float32", "float16" or "bfloat16". By
            default the one that the checkpoint's own file had, whatever the model computes in.
        max_shard_size: Bytes above which the weights are written in several files, with an index;
            a number, or a text such as "500MB".
        **card: More lines for the model card.

    Returns:
        The folder, absolute.

    Raises:
        ArgumentError: If there is no such type of numbers or no such size, or if another name has
            a value that is no text, so that an option was meant.
        CheckpointError: If the folder cannot be written, is a file, or is the current one.
        ModelError: If a weight is NaN or infinite, or too large for `dtype`.
    """
    _check_card(card)
    weights = _writer(model, dtype, max_shard_size)
    folder = absolute(folder)
    tokenizer = tokenizer_or_none(model)  # read before its folder is replaced
    with unfinished_folder(folder, _STALE) as beside:
        _write(model, tokenizer, beside, weights, card)
    model.info.tokenizer = str(folder)
    say_saved(model, folder, weights.dtype)
    return folder


def say_saved(model: Any, folder: Path, dtype: str | None = None) -> None:
    """Says what was saved, and whether nobody has trained it.

    Args:
        model: A FineTuneModel.
        folder: Where its checkpoint lies now.
        dtype: Type of numbers of the written weights; by default that of the model's own file.
    """
    written = in_dtype(dtype or model.info.file_dtype)
    say(f"Saved {folder}{written}; opens in {opens_in(model)}.")
    say_if_untrained(model)


def write_checkpoint(model: Any, folder: Path) -> None:
    """Writes what `save_pretrained` writes, into a folder that somebody else makes whole.

    Args:
        model: A FineTuneModel.
        folder: Made; nothing may be there yet.
    """
    folder.mkdir()
    _write(model, tokenizer_or_none(model), folder, _writer(model), {})


def push_to_hub(model: Any, repo_id: str, private: bool | None, token: Any, **options: Any) -> Any:
    """Saves a model and uploads it with huggingface_hub, whose errors pass through.

    Args:
        model: A FineTuneModel.
        repo_id: "owner/name", made if it is not there.
        private: Whether a new one is.
        token: Of the Hub; None for that of the login.
        **options: Options of `save_pretrained`.

    Returns:
        What huggingface_hub says of the commit.
    """
    import huggingface_hub

    _writer(model, **options)  # wrong options are found before there is a repository
    api = huggingface_hub.HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = model.info.tokenizer
        saved = save_pretrained(model, Path(folder) / "model", **options)
        model.info.tokenizer = tokenizer  # the folder is gone in a moment
        return api.upload_folder(repo_id=repo, folder_path=saved)


def write_config(model: Any, folder: Path, dtype: str | None = None) -> None:
    """Writes config.json, with the PyTorch class that fits and the type of the weights' numbers.

    Args:
        model: A FineTuneModel.
        folder: To write into.
        dtype: Type of numbers; by default that of the model's own file.
    """
    class_name = _layout(model).class_name(_family(model), model.task.class_suffix)
    # transformers called the key torch_dtype before it was dtype, and reads both.
    keys = [key for key in ("dtype", "torch_dtype") if key in model.config] or ["dtype"]
    dtypes = dict.fromkeys(keys, dtype or model.info.file_dtype)
    write_json(folder / "config.json", model.config | {"architectures": [class_name]} | dtypes)


def _check_card(card: dict[str, Any]) -> None:
    """Refuses options of other libraries, which would become lines of the model card."""
    for name, line in card.items():
        if not isinstance(line, str) or "dtype" in name or "shard" in name:
            raise ArgumentError(
                f"save_pretrained has no option {name!r}. It has dtype and max_shard_size; any "
                f"other name is a line of the model card, such as data='SST-2'; found "
                f"{name}={shown(line)}. model.push_to_hub('owner/name') uploads a model."
            )


def _writer(
    model: Any, dtype: str | None = None, max_shard_size: int | str = _SHARD
) -> WeightWriter:
    check(max_shard_size=max_shard_size)
    untrained = frozenset(variable.path for variable in untrained_variables(model))
    dtype = model.info.file_dtype if dtype is None else dtype
    return WeightWriter(dtype, bytes_of(max_shard_size), untrained)


def _write(
    model: Any, tokenizer: Any, folder: Path, weights: WeightWriter, card: dict[str, str]
) -> None:
    family = _family(model)
    refuse_ruined(model, "Saving")
    write_config(model, folder, weights.dtype)
    max_length = family.max_length(model.config) if tokenizer is None else model.max_length
    _layout(model).write(folder, model, family, weights, max_length)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    text = model_card(model.info, opens_in(model), card, model.task)
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")


def tokenizer_or_none(model: Any) -> Any:
    """The tokenizer; or None, which is said, where there is none or it cannot be read."""
    try:
        return model.tokenizer
    except FinetuneError as error:
        has_none = not has_vocabulary(Path(model.info.tokenizer))
        why = "The checkpoint has no tokenizer, so none is saved."
        say(why if has_none else f"No tokenizer is saved: {error}")
        return None


def _layout(model: Any) -> Layout:
    return model.task.layout(model.info.pooling)


def _family(model: Any) -> Family:
    return FAMILIES[model.config["model_type"]]
