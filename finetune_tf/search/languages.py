"""The languages of a checkpoint, as far as its model card or its config names them."""

from pathlib import Path
from typing import Any

from finetune_tf.base.paths import has_file
from finetune_tf.checkpoints.hub import local_path
from finetune_tf.errors import FinetuneError

_LARGEST_CARD = 1_000_000  # bytes


def languages_of(checkpoint: Any, model: Any) -> tuple[str, ...]:
    """Returns the codes of the languages of a checkpoint; empty if they are not stated.

    Args:
        checkpoint: What was passed to `load`. The model card of a local folder is read.
        model: The loaded model, whose config may have the key "language" or "languages".
    """
    stated = _of_card(checkpoint) or model.config.get("language") or model.config.get("languages")
    listed = [stated] if isinstance(stated, str) else stated
    return tuple(str(code) for code in listed) if isinstance(listed, list | tuple) else ()


def _of_card(checkpoint: Any) -> Any:
    """Returns what the header of README.md says about the language, or None."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    try:
        path = local_path(checkpoint) / "README.md"
        if not has_file(path) or path.stat().st_size > _LARGEST_CARD:
            return None
        header = metadata_load(Path(path))
    except (FinetuneError, OSError, ValueError, TypeError, yaml.YAMLError):
        return None
    return header.get("language") if isinstance(header, dict) else None
