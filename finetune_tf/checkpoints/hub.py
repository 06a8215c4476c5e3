"""From what a user calls a checkpoint to a folder on this machine."""

import os
import re
from pathlib import Path

from finetune_tf.base.arguments import shown
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError
from finetune_tf.weights.files import READERS, WEIGHT_FILES

# What a checkpoint needs besides its weights; modules of sentence-transformers included.
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*/config.json", "*_Dense/model.safetensors")
_TIMEOUT = 5.0  # seconds for the first answer, so that a dead network is noticed quickly


def resolve(
    checkpoint: str | Path, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """The local folder of a checkpoint, downloaded first if it is a Hub id.

    Honours `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` as huggingface_hub does.

    Args:
        checkpoint: A folder, or a Hub id such as "bert-base-uncased" or "owner/name".
        revision: Branch, tag or commit on the Hub; by default the main branch.
        cache_dir: Where downloads are kept; by default where huggingface_hub keeps them.

    Raises:
        CheckpointError: If it is neither, or cannot be had; the message says what to do.
    """
    path = local_path(checkpoint)
    if os.path.exists(path) and not os.path.isdir(path):
        raise CheckpointError(
            f"{path} is a file; a checkpoint is a folder with config.json and weights."
        )
    if os.path.isdir(path):
        folder, called = path, f"The folder {path}"
    else:
        folder = _from_hub(str(checkpoint), revision, cache_dir)
        called = f"The Hub's {str(checkpoint)!r}"
    if not has_file(folder / "config.json"):
        raise CheckpointError(
            f"{called} has no config.json, so it is no Hugging Face checkpoint; "
            f"found {sorted(item.name for item in folder.glob('*'))[:10]}."
        )
    return folder


def local_path(checkpoint: str | Path) -> Path:
    """The path that a checkpoint would have on this machine, whether or not it is there."""
    try:
        return Path(checkpoint).expanduser()
    except RuntimeError:  # "~name" of nobody
        return Path(checkpoint)


def _from_hub(name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise CheckpointError(
            f"There is no folder {shown(name, 300)}, and a Hub id has the form 'name' or "
            "'owner/name'."
        )
    # A misspelt file of a checkpoint is no Hub id, though it looks like owner/name.
    in_checkpoint = "/" in name and os.path.isfile(Path(name).parent / "config.json")
    if in_checkpoint or name.endswith(tuple(READERS)):
        raise CheckpointError(f"There is no file {name!r}.")
    return _download(name, revision, cache_dir)


def _download(name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _cached(name, revision, cache_dir, "HF_HUB_OFFLINE is set")
    try:
        listing = hub.HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        files = {sibling.rfilename for sibling in listing.siblings or []}
        weights = next(
            (file for file in WEIGHT_FILES if files & {file, f"{file}.index.json"}), WEIGHT_FILES[0]
        )
        # By the revision's name, not its commit: only a name is found again without a network.
        return Path(
            hub.snapshot_download(
                name, revision=revision, cache_dir=cache_dir, allow_patterns=_needed(weights)
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
    except Exception as error:  # the HTTP client's own errors differ between its releases
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        why = f"the Hub at {constants.ENDPOINT} gave no answer ({reason})"
        return _cached(name, revision, cache_dir, why)


def _cached(name: str, revision: str | None, cache_dir: str | Path | None, why: str) -> Path:
    import huggingface_hub as hub

    # A cached snapshot counts as whole if it has the files that would have been downloaded.
    needed = _needed(WEIGHT_FILES[0])
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
    except Exception:  # whatever is missing, the way out is the same
        raise CheckpointError(
            f"The checkpoint {shown(name, 200)} is neither a folder nor in the local cache, and "
            f"{why}. Download it on a machine with access (`hf download "
            f"{name[:200]} --local-dir FOLDER`), copy the folder, and give its path."
        ) from None


def _needed(weights: str) -> list[str]:
    """Patterns of the files to download, with the weights in one file or in shards."""
    stem, suffix = weights.split(".")
    return [*_SMALL_FILES, weights, f"{stem}-*.{suffix}"]
