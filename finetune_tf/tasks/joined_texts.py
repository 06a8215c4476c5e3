"""How source and target share the positions of a model that joins them to one sequence."""

from finetune_tf.errors import ModelError

# New tokens if nothing else limits them: neither generation_config.json nor the config.
NEW_TOKENS = 128


def joined_target_length(max_length: int) -> int:
    """The default `max_target_length` of a model that joins source and target.

    Args:
        max_length: The tokens of both texts together.

    Example:
        >>> from finetune_tf.tasks.joined_texts import joined_target_length
        >>> joined_target_length(256), joined_target_length(2048)
        (64, 128)
    """
    return max(min(max_length // 4, NEW_TOKENS), 1)


def joined_source_length(max_length: int, max_target_length: int) -> int:
    """The tokens that a source may have in a model that joins it with its target.

    Args:
        max_length: The tokens of both texts together.
        max_target_length: The tokens of a target.

    Raises:
        ModelError: If none are left.
    """
    if max_target_length >= max_length:
        raise ModelError(
            f"max_target_length={max_target_length} leaves no room for sources: this model joins "
            f"each source with its target, and both together may have {max_length} tokens. Give a "
            "smaller one."
        )
    return max_length - max_target_length
