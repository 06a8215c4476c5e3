"""Checks of the config keys for rotary position embeddings (Su et al. 2021, arXiv:2104.09864)."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.families import config_values as values
from finetune_tf.families.family import require_divisor, unsupported


def is_rope(value: Any) -> bool:
    """Returns whether a value is null or has the form {"rope_theta": 10000.0}."""
    if not isinstance(value, Mapping):
        return value is None
    theta = value.get("rope_theta")
    return theta is None or values.THETA.accepts(theta)


ROPE = values.Predicate(
    'settings of rotary positions such as {"rope_theta": 10000.0}, or null', is_rope
)


def check_rotary_heads(config: Mapping[str, Any]) -> None:
    """Checks that the heads divide the hidden size, and that the head size is even.

    Raises:
        CheckpointError: If they do not, or it is odd.
    """
    require_divisor(config, "hidden_size", "num_attention_heads")
    head_size = config["hidden_size"] // config["num_attention_heads"]
    if head_size % 2:
        raise unsupported(
            config, "num_attention_heads", f"heads of an even size, found {head_size}"
        )


def check_rope_type(config: Mapping[str, Any], key: str, rope: Mapping[str, Any] | None) -> None:
    """Checks that rotary positions are not scaled.

    Args:
        config: A config with `key` and with `model_type`.
        key: The config key that contains the settings.
        rope: The settings; None for the default.

    Raises:
        CheckpointError: If the `rope_type` is not "default".
    """
    if any((rope or {}).get(name, "default") != "default" for name in ("rope_type", "type")):
        raise unsupported(config, key, "the rope_type 'default'")
