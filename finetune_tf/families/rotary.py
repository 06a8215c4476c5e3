"""What configs say of rotary positions, in all families that have them."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.families import config_values as values
from finetune_tf.families.family import require_divisor, unsupported


def is_rope(value: Any) -> bool:
    """Whether it is null or the settings of rotary positions, such as {"rope_theta": 10000.0}."""
    if not isinstance(value, Mapping):
        return value is None
    theta = value.get("rope_theta")
    return theta is None or values.THETA.accepts(theta)


ROPE = values.Shape("settings of rotary positions, or null", is_rope)


def check_rotary_heads(config: Mapping[str, Any]) -> None:
    """Refuses heads that do not divide the hidden size, and those of an odd size.

    Raises:
        CheckpointError: If they are so.
    """
    require_divisor(config, "hidden_size", "num_attention_heads")
    head_size = config["hidden_size"] // config["num_attention_heads"]
    if head_size % 2:
        raise unsupported(
            config, "num_attention_heads", f"heads of an even size, found {head_size}"
        )


def check_rope_type(config: Mapping[str, Any], key: str, rope: Mapping[str, Any] | None) -> None:
    """Refuses rotary positions that are scaled.

    Args:
        config: With the key.
        key: Where the settings stand.
        rope: The settings.

    Raises:
        CheckpointError: If their type is not the default.
    """
    if any((rope or {}).get(name, "default") != "default" for name in ("rope_type", "type")):
        raise unsupported(config, key, "the rope_type 'default'")
