"""Loads the fast tokenizer of a checkpoint and checks its files."""

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
    report_defaults,
)
from finetune_tf.errors import CheckpointError, FinetuneError, MissingExtraError

#: The folder in a checkpoint with the tokenizer of target texts, if they have one of their own.
TARGET_TOKENIZER = "target_tokenizer"
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")  # any of them contains a vocabulary
# Files that transformers reads for a tokenizer; config.json determines its class.
_FILES = (*_VOCABULARIES, "*token*.json", "merges.txt", "config.json")
# Chat templates, the further ones of which are in a folder of their own.
_FILES += ("*.jinja", "additional_chat_templates/*.jinja")
_MAX_BYTES = 200_000_000  # of files that are kept in memory until the tokenizer is used
_JSON_OBJECTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_JSON_OBJECTS += ("added_tokens.json", "vocab.json")


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer: a snapshot of a folder, or those that a `.keras` file carries.

    The snapshot is that of the time when the checkpoint was opened.

    A tokenizer is loaded when it is first used. Another process may have saved a new version into
    the folder by then, whose tokenizer does not belong to the weights in memory. In that case the
    snapshot is used.

    Attributes:
        folder: The folder of the files; of carried ones, that of the checkpoint.
        version: The version of the folder; see `version_of`. That of carried files is (), which
            differs from that of any folder.
        contents: Maps the paths of files, relative to the folder, to bytes. It is empty if the
            folder contains no vocabulary, or files that are too large for one; the folder itself is
            then read later.
    """

    folder: Path
    version: tuple[int, ...] | None
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "TokenizerFiles":
        """Reads the files; if one is unreadable, `load_tokenizer` raises the error later."""
        contents = {}
        found = _find_files(folder, _FILES) if has_vocabulary(folder) else []
        with contextlib.suppress(OSError):
            if sum(path.stat().st_size for path in found) <= _MAX_BYTES:
                contents = {
                    path.relative_to(folder).as_posix(): path.read_bytes() for path in found
                }
        return cls(folder, version_of(folder), contents)

    @classmethod
    def carried(cls, folder: Path, contents: Mapping[str, bytes]) -> "TokenizerFiles":
        """Returns files that are used in the place of those in a folder.

        Args:
            folder: The folder of the checkpoint.
            contents: As the attribute.
        """
        return cls(folder, (), contents)

    @property
    def is_carried(self) -> bool:
        """Whether the files are used in the place of those in the folder."""
        return self.version == ()


def has_vocabulary(folder: Path) -> bool:
    """Returns whether a folder contains the files of a tokenizer, readable or not."""
    return bool(_find_files(folder, _VOCABULARIES))


def load_tokenizer(
    source: str | Path,
    files: TokenizerFiles | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """Loads the fast tokenizer of a checkpoint folder, with support of `return_tensors="tf"`.

    Prints one line if the folder does not define a setting that affects tokens, so that a default
    of transformers is used.

    Args:
        source: The checkpoint folder.
        files: The tokenizer files at the time when the model was loaded.
        config: The config of the model, to check the special tokens against it.

    Raises:
        CheckpointError: If the folder does not exist, or has no tokenizer, no fast tokenizer, or
            one that cannot tokenize the words of its own vocabulary.
        MissingExtraError: If it is a SentencePiece model and the package is not installed.

    Example:
        >>> from finetune_tf.checkpoints.tokenizers import load_tokenizer
        >>> load_tokenizer(checkpoint)("a film")["attention_mask"]
        [1, 1, 1, 1]
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
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.contents.items():
            path = Path(temporary) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        tokenizer = _load(Path(temporary), str(source), config)
    tokenizer.name_or_path = str(source)
    return tokenizer


def _has_changed(files: TokenizerFiles) -> bool:
    """Returns whether the folder or its files have been replaced since."""
    return version_of(files.folder) != files.version


def _load(folder: Path, name: str, config: Mapping[str, Any] | None) -> Any:
    """Loads a tokenizer from a folder; `name` is the name of the folder in messages."""
    _check_files(folder, name)
    settings = _read_json_if_exists(folder / "tokenizer_config.json")
    stored = _read_json_if_exists(folder / "tokenizer.json")
    try:
        tokenizer = _from_transformers(folder)
        if corrected := corrections(tokenizer, settings, stored):
            tokenizer = _from_transformers(folder, **corrected)
        if not tokenizer.is_fast:
            raise CheckpointError(
                f"The tokenizer in {name} is a {type(tokenizer).__name__}, which is not a fast "
                "tokenizer. Save a fast one, which writes tokenizer.json."
            )
        report_defaults(tokenizer, name, settings, stored, corrected)
        check_vocabulary(tokenizer, name, settings, stored)
        check_special_tokens(tokenizer, name, config)
    except FinetuneError:
        raise
    except BaseException as error:  # Rust raises bare Exceptions, and panics are not Exceptions
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:300]
        if "instantiate the backend tokenizer" in reason:  # the rest lists packages to install
            reason = "transformers reads no other file than tokenizer.json for this kind of model"
        raise CheckpointError(
            f"The tokenizer in {name} cannot be read: {reason}. A checkpoint for texts needs a "
            "valid tokenizer.json or vocab.txt: download these files again."
        ) from None
    tokenizer.__class__ = with_tensorflow(type(tokenizer))
    return tokenizer


def _from_transformers(folder: Path, **settings: Any) -> Any:
    with _pytorch_notice_disabled():
        from transformers import AutoTokenizer
    with _warnings_disabled():
        return AutoTokenizer.from_pretrained(str(folder), **settings)


def _find_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for name in patterns for path in folder.glob(name) if path.is_file()})


def _check_files(folder: Path, name: str) -> None:
    if not folder.is_dir():
        # transformers would treat the path as a Hub id and wait for a response.
        raise CheckpointError(
            f"The folder {name}, from which the tokenizer is loaded, does not exist. Restore it, "
            "or set another one: model.info.tokenizer = 'folder'."
        )
    for pattern in _FILES:
        for path in folder.glob(pattern):
            if not path.is_dir():  # transformers does not read subfolders
                has_file(path)
    if not (vocabularies := _find_files(folder, _VOCABULARIES)):
        # transformers would create a tokenizer with an empty vocabulary.
        raise CheckpointError(
            f"There is no tokenizer in {name}: expected tokenizer.json or vocab.txt. Copy the "
            "tokenizer files of the checkpoint there."
        )
    for file in _JSON_OBJECTS:
        _read_json_if_exists(folder / file)
    if all(path.suffix == ".model" for path in vocabularies):
        _check_sentencepiece(vocabularies[0], name)


def _check_sentencepiece(path: Path, name: str) -> None:
    """Raises the right error; transformers would recommend to install tiktoken instead."""
    if importlib.util.find_spec("sentencepiece") is None:
        raise MissingExtraError(
            f"The tokenizer in {name} is the SentencePiece model {path.name}, without a "
            "tokenizer.json, and reading it needs a package: pip install "
            "'finetune-tf[sentencepiece]' (pip install sentencepiece)."
        )
    import sentencepiece

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(
            f"{path.name} in {name} is not a valid SentencePiece model ({error}): download the "
            "file again."
        ) from None


def _read_json_if_exists(path: Path) -> dict:
    return read_json(path) if has_file(path) else {}


@contextlib.contextmanager
def _warnings_disabled() -> Iterator[None]:
    """Disables warnings of transformers about its fallbacks; their results are checked here."""
    logger = logging.getLogger("transformers")
    previous = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(previous)


@contextlib.contextmanager
def _pytorch_notice_disabled() -> Iterator[None]:
    """Disables the notice of transformers that PyTorch is missing, which is not needed here."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    previous = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous
