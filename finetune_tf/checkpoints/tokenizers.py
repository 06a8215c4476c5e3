"""The checkpoint's own tokenizer, in its fast version."""

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import has_file, read_whole, version_of
from finetune_tf.checkpoints.return_tensors import is_panic, with_tensorflow
from finetune_tf.checkpoints.vocabularies import (
    check_special_tokens,
    check_vocabulary,
    corrections,
    tell_defaults,
)
from finetune_tf.errors import CheckpointError, FinetuneError, MissingExtraError

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")  # any of them holds a vocabulary
# What transformers reads for a tokenizer; config.json says which class it is.
_FILES = (*_VOCABULARIES, "*token*.json", "merges.txt", "config.json")
_MOST_BYTES = 200_000_000  # of files that are kept until the tokenizer is used
_JSON_OBJECTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_JSON_OBJECTS += ("added_tokens.json", "vocab.json")


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer's files as they were when a checkpoint was opened.

    A tokenizer is loaded when it is first used. If another process has saved into the folder by
    then, its files are those of another version than the weights, so these are used.

    Attributes:
        folder: Where they stand.
        version: Of the folder; see `version_of`.
        contents: Name to bytes; empty if the folder holds no vocabulary, or files far too large
            for one, so that the folder itself is read later.
    """

    folder: Path
    version: tuple[int, ...] | None
    contents: Mapping[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> "TokenizerFiles":
        """Reads them; what cannot be read is left to the error of `load_tokenizer`."""
        contents = {}
        found = _found(folder, _FILES) if has_vocabulary(folder) else []
        with contextlib.suppress(OSError):
            if sum(path.stat().st_size for path in found) <= _MOST_BYTES:
                contents = {path.name: path.read_bytes() for path in found}
        return cls(folder, version_of(folder), contents)


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, readable or not."""
    return bool(_found(folder, _VOCABULARIES))


def load_tokenizer(
    source: str | Path,
    files: TokenizerFiles | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """The fast tokenizer of a checkpoint folder; it knows `return_tensors="tf"`.

    What the folder leaves open and transformers' defaults decide is said in one line.

    Args:
        source: The folder.
        files: Those that stood there when the model was loaded.
        config: The model's, to compare special tokens with.

    Raises:
        CheckpointError: If the folder is gone, or holds no tokenizer, only one in Python, or one
            that does not know its own vocabulary.
        MissingExtraError: If it is a SentencePiece model and the package is not installed.
    """
    folder = Path(source)
    if files is None or not files.contents or files.folder != folder:
        return read_whole(folder, lambda: _load(folder, str(source), config))
    if not _has_changed(files):
        try:
            tokenizer = _load(folder, str(source), config)
        except FinetuneError:
            if not _has_changed(files):
                raise
        else:
            if not _has_changed(files):
                return tokenizer
    with tempfile.TemporaryDirectory() as between:
        for name, content in files.contents.items():
            (Path(between) / name).write_bytes(content)
        tokenizer = _load(Path(between), str(source), config)
    tokenizer.name_or_path = str(source)
    return tokenizer


def _has_changed(files: TokenizerFiles) -> bool:
    """Whether the folder is another one by now, or has other files in it."""
    return version_of(files.folder) != files.version


def _load(folder: Path, called: str, config: Mapping[str, Any] | None) -> Any:
    _check_files(folder, called)
    settings = _read_if_there(folder / "tokenizer_config.json")
    stored = _read_if_there(folder / "tokenizer.json")
    try:
        tokenizer = _from_transformers(folder)
        if corrected := corrections(tokenizer, settings, stored):
            tokenizer = _from_transformers(folder, **corrected)
        if not tokenizer.is_fast:
            raise CheckpointError(
                f"The tokenizer in {called} is {type(tokenizer).__name__}, which has no fast "
                "version; save one with tokenizer.json."
            )
        tell_defaults(tokenizer, called, settings, stored, corrected)
        check_vocabulary(tokenizer, called, settings, stored)
        check_special_tokens(tokenizer, called, config)
    except FinetuneError:
        raise
    except BaseException as error:  # Rust's are bare Exceptions, and panics not even that
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:300]
        if "instantiate the backend tokenizer" in reason:  # it goes on with packages to install
            reason = "transformers reads no other file than tokenizer.json for this kind of model"
        raise CheckpointError(
            f"The tokenizer in {called} cannot be read: {reason}. A checkpoint for texts holds "
            "tokenizer.json or vocab.txt; get these files again."
        ) from None
    tokenizer.__class__ = with_tensorflow(type(tokenizer))
    return tokenizer


def _from_transformers(folder: Path, **settings: Any) -> Any:
    with _without_notice():
        from transformers import AutoTokenizer
    with _without_guesses():
        return AutoTokenizer.from_pretrained(str(folder), **settings)


def _found(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for name in patterns for path in folder.glob(name) if path.is_file()})


def _check_files(folder: Path, called: str) -> None:
    if not folder.is_dir():
        # transformers would take the path for a Hub id and wait for an answer.
        raise CheckpointError(
            f"The folder {called}, which the tokenizer is loaded from, is not there. Put it back, "
            "or name another one: model.info.tokenizer = 'folder'."
        )
    for pattern in _FILES:
        for path in folder.glob(pattern):
            if not path.is_dir():  # a subfolder is read by nobody
                has_file(path)
    if not (vocabularies := _found(folder, _VOCABULARIES)):
        # transformers would make up a tokenizer that knows no word.
        raise CheckpointError(
            f"There is no tokenizer in {called}: expected tokenizer.json or vocab.txt. Copy the "
            "tokenizer files of the checkpoint there."
        )
    for name in _JSON_OBJECTS:
        _read_if_there(folder / name)
    if all(path.suffix == ".model" for path in vocabularies):
        _check_sentencepiece(vocabularies[0], called)


def _check_sentencepiece(path: Path, called: str) -> None:
    """Without the package, or with a broken file, transformers would ask for tiktoken."""
    if importlib.util.find_spec("sentencepiece") is None:
        raise MissingExtraError(
            f"The tokenizer in {called} is the SentencePiece model {path.name}, without a "
            "tokenizer.json, and reading it needs a package: pip install "
            "'finetune-tf[sentencepiece]' (pip install sentencepiece)."
        )
    import sentencepiece

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(
            f"{path.name} in {called} is no SentencePiece model ({error}): get the file again."
        ) from None


def _read_if_there(path: Path) -> dict:
    return read_json(path) if has_file(path) else {}


@contextlib.contextmanager
def _without_guesses() -> Iterator[None]:
    """Transformers warns of what it tries next; what comes of it is checked and said here."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Transformers announces on import that PyTorch is missing, which is how it is meant here."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
