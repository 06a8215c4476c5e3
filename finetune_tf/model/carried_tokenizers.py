"""Tokenizers in `.keras` files: those that are not in the folder of the checkpoint any more."""

import json
import tempfile
from pathlib import Path
from typing import Any

from finetune_tf.checkpoints.tokenizers import TARGET_TOKENIZER, TokenizerFiles, load_tokenizer
from finetune_tf.errors import FinetuneError
from finetune_tf.messages import quiet

#: The attributes of a model that hold its tokenizers, and the files of those not yet made.
TOKENIZERS = ("_tokenizer", "_tokenizer_files", "_target_tokenizer", "_target_tokenizer_files")

# What the last call left in a tokenizer, which every call sets again.
_STATE = ("truncation", "padding")


def describe_tokenizers(model: Any) -> dict[str, dict[str, str]]:
    """Returns the files of the tokenizers that differ from those in the folder of the checkpoint.

    A `.keras` file names this folder. A tokenizer that was set, to which tokens were added, or one
    of whose settings was changed would be another one after the file is read.

    Args:
        model: A FineTuneModel.

    Returns:
        The files by their names, under "" for the tokenizer and under "target_tokenizer" for that
        of target texts; empty if the folder has what the model has.
    """
    found = {}
    for name, attribute in (("", "_tokenizer"), (TARGET_TOKENIZER, "_target_tokenizer")):
        tokenizer = getattr(model, attribute, None)
        files = getattr(model, f"{attribute}_files", None)
        if tokenizer is not None:
            own = _files_of(tokenizer)
            if _compared(own) != _of_folder(Path(model.info.tokenizer) / name, model):
                found[name] = own
        elif files is not None and files.is_carried:  # the model has been read, and not used yet
            found[name] = {each: content.decode() for each, content in files.contents.items()}
    return found


def restore_tokenizers(model: Any, described: dict[str, dict[str, str]]) -> None:
    """Gives a model the tokenizers of `describe_tokenizers`; they are made when they are used.

    Args:
        model: A FineTuneModel.
        described: The files of the tokenizers.
    """
    for name, files in described.items():
        contents = {each: text.encode() for each, text in files.items()}
        attribute = "_target_tokenizer" if name else "_tokenizer"
        folder = Path(model.info.tokenizer) / name
        setattr(model, f"{attribute}_files", TokenizerFiles.carried(folder, contents))


def _files_of(tokenizer: Any) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


def _of_folder(folder: Path, model: Any) -> dict[str, Any] | None:
    try:
        with quiet():
            return _compared(_files_of(load_tokenizer(folder, config=model._text_config)))
    except FinetuneError:  # there is no tokenizer
        return None


def _compared(files: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(files)
    if "tokenizer.json" in files:
        content = json.loads(files["tokenizer.json"])
        found["tokenizer.json"] = {k: v for k, v in content.items() if k not in _STATE}
    return found
