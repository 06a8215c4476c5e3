"""Rotary positions of decoders: the base and the scaling that a config asks for.

Scaling stretches the rotations of a model that was trained on short texts. Each type is a function
of the config's `rope_parameters`, and gives radians a position for each pair of features.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune_tf.architectures import RotaryPositions
from finetune_tf.architectures.positions import rotary_frequencies
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families.family import unsupported

_NUMBER = values.Number(0, 1e12, above_low=True)
_LENGTH = "original_max_position_embeddings"  # of the texts before the stretching
_STRETCHED = ("llama3", "yarn")  # the types that depend on it
#: By rope_type, the keys that it needs and those that it may have.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    # Only texts beyond max_position_embeddings are stretched, and there are none of these here.
    "dynamic": (("factor",), ()),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor", _LENGTH),
        (),
    ),
    "yarn": (
        ("factor", _LENGTH),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    ),
}


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of rotary positions, from the keys of transformers 5 or of earlier releases."""
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    rope.setdefault("rope_theta", config.get("rope_theta") or 10_000.0)
    rope.setdefault("rope_type", rope.get("type") or "default")
    if rope["rope_type"] in _STRETCHED and config.get(_LENGTH) is not None:
        rope[_LENGTH] = config[_LENGTH]  # as in transformers, this one takes precedence
    return rope


def check_rope(config: Mapping[str, Any]) -> None:
    """Refuses settings of rotary positions that cannot be computed here.

    Raises:
        CheckpointError: If the type is unknown, or a number that it needs is missing or wrong.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = rope_parameters(config)
    if not isinstance(rope["rope_type"], str) or rope["rope_type"] not in _KEYS:
        raise unsupported(
            {key: rope["rope_type"], **config}, key, f"a rope_type of {', '.join(_KEYS)}"
        )
    needed, optional = _KEYS[rope["rope_type"]]
    for name in ("rope_theta", *needed, *optional):
        if rope.get(name) is None and name in optional:
            continue
        if not _NUMBER.accepts(rope.get(name)):
            raise CheckpointError(
                f"The config key {key!r} has the rope_type {rope['rope_type']!r}, whose {name!r} "
                f"has to be {_NUMBER}, found {rope.get(name)!r}. Get the checkpoint's own "
                "config.json."
            )
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise unsupported({key: rope, **config}, key, "a partial_rotary_factor of 1")


def rotary_positions(config: Mapping[str, Any], size: int) -> RotaryPositions:
    """The layer that the blocks of a decoder share.

    Args:
        config: Complete.
        size: Features of a head.
    """
    rope = rope_parameters(config)
    theta, kind = float(rope["rope_theta"]), rope["rope_type"]
    if kind in ("default", "dynamic"):
        return RotaryPositions(size, theta, name="positions")
    frequencies, scale = rotary_frequencies(size, theta), 1.0
    if kind == "linear":
        frequencies = frequencies / np.float32(rope["factor"])
    elif kind == "llama3":
        frequencies = _llama3(frequencies, rope)
    else:
        frequencies, scale = _yarn(frequencies, rope, size, theta)
    return RotaryPositions(size, theta, frequencies.tolist(), scale, name="positions")


def _llama3(frequencies: np.ndarray, rope: Mapping[str, Any]) -> np.ndarray:
    """Slow rotations divided by the factor, fast ones kept, a blend between (Llama 3.1)."""
    factor, length = np.float32(rope["factor"]), rope[_LENGTH]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = length / (2 * math.pi / frequencies)  # over the original context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0).astype("float32")
    return (1 - blend) * frequencies / factor + blend * frequencies


def _yarn(
    frequencies: np.ndarray, rope: Mapping[str, Any], size: int, theta: float
) -> tuple[np.ndarray, float]:
    """Frequencies by parts, and the scale of the attention (YaRN, Peng et al. 2024)."""
    factor, length = rope["factor"], rope[_LENGTH]

    def place(turns: float) -> float:
        """The pair of features that turns so often over the original context."""
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = place(rope.get("beta_fast") or 32), place(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(size // 2, dtype="float32") - low) / (high - low), 0.0, 1.0)
    kept = (1 - ramp).astype("float32")
    scaled = frequencies / np.float32(factor) * (1 - kept) + frequencies * kept

    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    scale = rope.get("attention_factor")
    if scale is None:
        weights = rope.get("mscale"), rope.get("mscale_all_dim")
        scale = magnitude(weights[0]) / magnitude(weights[1]) if all(weights) else magnitude(1)
    return scaled, float(scale)
