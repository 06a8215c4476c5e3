"""Resolves a path or a Hub id to a local folder, and downloads checkpoints."""

import os
import re
from pathlib import Path

from finetune_tf.base.arguments import shown
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError
from finetune_tf.weights.files import READERS, WEIGHT_FILES

# Files that a checkpoint needs besides its weights, including modules of sentence-transformers.
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*/config.json", "*_Dense/model.safetensors")
_TIMEOUT = 5.0  # seconds to wait for the first response, so that no network is noticed quickly


def resolve(
    checkpoint: str | Path, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Returns the local folder of a checkpoint, and downloads it first if it is a Hub id.

    Respects `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` as huggingface_hub does.

    Args:
        checkpoint: A folder, or a Hub id such as "bert-base-uncased" or "owner/name".
        revision: Branch, tag or commit on the Hub; by default the main branch.
        cache_dir: Folder for downloads; by default that of huggingface_hub.

    Raises:
        CheckpointError: If it is neither, is a folder although there is a revision, or cannot be
            downloaded. The message says what to do.
    """
    path = local_path(checkpoint)
    if os.path.exists(path) and not os.path.isdir(path):
        raise CheckpointError(
            f"{path} is a file; a checkpoint is a folder with config.json and weights."
        )
    if os.path.isdir(path):
        check_has_revisions(path, revision)
        folder, called = path, f"The folder {path}"
    else:
        folder = _from_hub(str(checkpoint), revision, cache_dir)
        called = f"The Hub's {str(checkpoint)!r}"
    if not has_file(folder / "config.json"):
        raise CheckpointError(
            f"{called} has no config.json, so it is not a Hugging Face checkpoint; "
            f"found {sorted(item.name for item in folder.glob('*'))[:10]}."
        )
    return folder


def check_has_revisions(path: Path, revision: str | None) -> None:
    """Checks that no revision is wanted of a path, which has only one.

    Args:
        path: A folder or file of this machine.
        revision: As for `resolve`; "main" means no other one.

    Raises:
        CheckpointError: If there is one.
    """
    if revision not in (None, "main"):
        raise CheckpointError(
            f"revision={revision!r} is for checkpoints on the Hub, but {path} is on this machine. "
            "Leave revision out, or give the id of the Hub, such as 'owner/name'."
        )


def local_path(checkpoint: str | Path) -> Path:
    """Returns the name of a checkpoint as a path, whether or not it exists."""
    try:
        return Path(checkpoint).expanduser()
    except RuntimeError:  # "~name" for an unknown user
        return Path(checkpoint)


def _from_hub(name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise CheckpointError(
            f"There is no folder {shown(name, 300)}, and a Hub id has the form 'name' or "
            "'owner/name'."
        )
    # The misspelled path of a checkpoint's file may have the form of a Hub id, "owner/name".
    in_checkpoint = "/" in name and os.path.isfile(Path(name).parent / "config.json")
    if in_checkpoint or name.endswith(tuple(READERS)):
        raise CheckpointError(f"There is no file {name!r}.")
    return _download(name, revision, cache_dir)


def _download(name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _find_in_cache(name, revision, cache_dir, "HF_HUB_OFFLINE is set")
    try:
        listing = hub.HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        files = {sibling.rfilename for sibling in listing.siblings or []}
        weights = next(
            (file for file in WEIGHT_FILES if files & {file, f"{file}.index.json"}), WEIGHT_FILES[0]
        )
        # Download by the name of the revision: offline, the cache is searched by name only.
        return Path(
            hub.snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=_download_patterns(weights),
            )
        )
    except errors.GatedRepoError:
        raise CheckpointError(
            f"The checkpoint {name!r} is gated: accept its terms on its Hub page, then log in "
            "with `hf auth login` or set HF_TOKEN."
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"The checkpoint {name!r} has no revision {revision!r}.") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"There is no folder and no Hub checkpoint {name!r}. Check the spelling; if it is "
            "private, log in with `hf auth login` or set HF_TOKEN."
        ) from None
    except Exception as error:  # the exceptions of the HTTP client differ between releases
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        why = f"the Hub at {constants.ENDPOINT} gave no answer ({reason})"
        return _find_in_cache(name, revision, cache_dir, why)


def _find_in_cache(name: str, revision: str | None, cache_dir: str | Path | None, why: str) -> Path:
    """Returns the cached folder; `why` explains in the error why nothing can be downloaded."""
    import huggingface_hub as hub

    # A cached snapshot is complete if it has the files that would have been downloaded.
    needed = _download_patterns(WEIGHT_FILES[0])
    try:
        return Path(
            hub.snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=needed,
                local_files_only=True,
            )
        )
    except Exception:  # the advice is the same for every error
        raise CheckpointError(
            f"The checkpoint {shown(name, 200)} is neither a folder nor in the local cache, and "
            f"{why}. Download it on a machine with access (`hf download "
            f"{name[:200]} --local-dir FOLDER`), copy the folder, and pass its path."
        ) from None


def _download_patterns(weights: str) -> list[str]:
    """Returns glob patterns of the files to download; the weights may be in shards.

    Example:
        >>> _download_patterns("model.safetensors")[-2:]
        ['model.safetensors', 'model-*.safetensors']
    """
    stem, suffix = weights.split(".")
    return [*_SMALL_FILES, weights, f"{stem}-*.{suffix}"]
