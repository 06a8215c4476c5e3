"""`save_pretrained`: a model as a Hugging Face folder, whole or not at all."""

import errno
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.checkpoints import FAMILIES, Family
from finetune_tf.checkpoints.card import model_card
from finetune_tf.checkpoints.sentence_transformers import DENSE, module_files
from finetune_tf.checkpoints.tokenizers import has_vocabulary
from finetune_tf.checkpoints.weight_files import UNTRAINED
from finetune_tf.checkpoints.weights import dump
from finetune_tf.errors import FinetuneError
from finetune_tf.files import unfinished_folder
from finetune_tf.messages import say
from finetune_tf.paths import absolute
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.untrained import say_if_untrained, untrained_variables

# Older weights, and modules that a model saved there before may have had.
_STALE = ("tf_model", "pytorch_model", "model-", "model.safetensors", "modules.json")
_STALE += ("1_Pooling", "2_Dense", "2_Normalize")


def opens_in(model: Any) -> str:
    """The PyTorch class that opens what `save_pretrained` writes for this model."""
    if model.task.layout(model.info.pooling) == "transformers":
        return f"transformers.{_family(model).class_prefix}{model.task.class_suffix}"
    return "sentence_transformers.SentenceTransformer"


def save_pretrained(model: Any, folder: str | Path, **card: str) -> Path:
    """Writes config, weights, tokenizer and model card.

    A model that PyTorch's transformers has a class for is saved for it; a classifier on another
    pooling than the family's own, and embeddings of texts, as modules of sentence-transformers,
    whose `encode` then gives the logits or the embeddings.

    Args:
        model: A FineTuneModel.
        folder: Replaced as a whole, with one rename; it may be the one the model came from.
            Other files that stand in it are kept. The current folder cannot be replaced.
        **card: More lines for the model card.

    Returns:
        The folder, absolute.

    Raises:
        CheckpointError: If the folder cannot be written, is a file, or is the current one.
        ModelError: If a weight is NaN or infinite.
    """
    folder = absolute(folder)
    tokenizer = tokenizer_or_none(model)  # read before its folder is replaced
    with unfinished_folder(folder, _STALE) as beside:
        _write(model, tokenizer, beside, card)
    model.info.tokenizer = str(folder)
    say(f"Saved {folder}; opens in {opens_in(model)}.")
    say_if_untrained(model)
    return folder


def write_checkpoint(model: Any, folder: Path) -> None:
    """Writes what `save_pretrained` writes, into a folder that somebody else makes whole.

    Args:
        model: A FineTuneModel.
        folder: Made; nothing may be there yet.
    """
    folder.mkdir()
    _write(model, tokenizer_or_none(model), folder, {})


def push_to_hub(model: Any, repo_id: str, private: bool | None, token: Any) -> Any:
    """Saves a model and uploads it with huggingface_hub, whose errors pass through.

    Args:
        model: A FineTuneModel.
        repo_id: "owner/name", made if it is not there.
        private: Whether a new one is.
        token: Of the Hub; None for that of the login.

    Returns:
        What huggingface_hub says of the commit.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = model.info.tokenizer
        saved = save_pretrained(model, Path(folder) / "model")
        model.info.tokenizer = tokenizer  # the folder is gone in a moment
        return api.upload_folder(repo_id=repo, folder_path=saved)


def write_config(model: Any, folder: Path) -> None:
    """Writes config.json, with the name of the PyTorch class that fits."""
    bare = model.task.layout(model.info.pooling) == "sentence_transformers"
    suffix = "Model" if bare else model.task.class_suffix
    config = model.config | {"architectures": [f"{_family(model).class_prefix}{suffix}"]}
    _write_json(folder / "config.json", config)


def _write(model: Any, tokenizer: Any, folder: Path, card: dict[str, str]) -> None:
    family, info = _family(model), model.info
    bare = model.task.layout(info.pooling) == "sentence_transformers"
    write_config(model, folder)

    head_table = DENSE if bare else family.head(info.task, model.config).weights
    names = {row.variable for row in head_table}
    prefix = "" if bare else family.tensor_prefix

    def tensors_of(variables: list[Any]) -> tuple[dict, dict]:
        of_head = [v for v in variables if v.path in names]
        rest = [v for v in variables if v.path not in names]
        return dump(rest, family.weights(model.config), prefix), dump(of_head, head_table)

    tensors, head = tensors_of(model.weights)
    refuse_ruined(model, "Saving")
    untrained = set().union(*tensors_of(untrained_variables(model)))
    _write_tensors(folder / "model.safetensors", tensors if bare else tensors | head, untrained)
    if bare:
        files = module_files(
            info.pooling,
            model.get_layer("pooling").output.shape[-1],
            model.max_length if tokenizer is not None else family.max_length(model.config),
            dense=head or None,
            normalize="unit_length" in (layer.name for layer in model.layers),
        )
        for path, content in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            if path.endswith(".safetensors"):
                _write_tensors(folder / path, content, content if untrained else ())
            else:
                _write_json(folder / path, content)
    elif model.task.poolings and info.pooling != model.task.poolings[0]:
        # PyTorch's class has this pooling inside; a load here would take it for another one.
        (folder / "1_Pooling").mkdir()
        _write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": info.pooling})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    text = model_card(model.info, opens_in(model), card, model.task.usage)
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


def _family(model: Any) -> Family:
    return FAMILIES[model.config["model_type"]]


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # Half a character (a lone surrogate) is written as JSON's own escape for it.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_tensors(path: Path, tensors: dict[str, np.ndarray], untrained: Iterable[str]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        # transformers refuses files that do not say which framework's layout they have.
        metadata = {"format": "pt"}
        if noted := [name for name in untrained if name in tensors]:
            metadata[UNTRAINED] = "\n".join(noted)
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # its name for a full disk, among others
        raise OSError(errno.EIO, str(error)) from None
