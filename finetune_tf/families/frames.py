"""Video classification with the families of images, which transformers does not have.

The backbone computes the features of each frame, and a head combines them over time. The config
keys "num_frames" and "temporal" of such a checkpoint are those of this library.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from finetune_tf.architectures.frames import TEMPORAL, WINDOW, TemporalHead, frame_encoder
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.family import Family, Head, unsupported
from finetune_tf.families.vit import BLOCK
from finetune_tf.weights.table import Weight, block, linear, norm

VIDEO = "video-classification"
_DEFAULTS = {"num_frames": 9, "temporal": "convolution"}
# Frames that each head needs at least: two halves, or one window of the convolution.
_LEAST = {"convolution": WINDOW, "difference": 2}


def with_frames(family: Family) -> Family:
    """Returns a family of images that also classifies clips.

    Args:
        family: A family with a head for image classification.
    """
    return replace(
        family,
        rules={
            **family.rules,
            "num_frames": image_values.FRAMES,
            "temporal": values.OneOf(TEMPORAL),
        },
        own_keys={**family.own_keys, **dict.fromkeys(_DEFAULTS)},
        check=partial(_check, family),
        heads=partial(_heads, family),
        for_task=_for_task,
    )


def _check(family: Family, config: dict) -> None:
    family.check(config)
    complete = _DEFAULTS | config
    least = _LEAST.get(complete["temporal"], 1)
    if complete["num_frames"] < least:
        found = f"at least {least} for temporal={complete['temporal']!r}"
        raise unsupported(complete, "num_frames", found)


def _for_task(task: str, config: dict) -> dict:
    """Adds the keys for clips to a config, or removes them for another task."""
    if task == VIDEO:
        return _DEFAULTS | config
    return {key: value for key, value in config.items() if key not in _DEFAULTS}


def _heads(family: Family, config: dict) -> dict[str, Head]:
    heads, clips = family.heads(config), _DEFAULTS | config
    frames, temporal = clips["num_frames"], clips["temporal"]
    head = partial(TemporalHead, temporal, frames, name="temporal")

    def backbone(config: dict, dtype: Any, pixels: Any) -> Any:
        return frame_encoder(family.backbone, config, dtype, pixels, frames)

    rows = [*_weights(), *linear("temporal.classifier", "classifier/dense")]
    dropout = heads["image-classification"].dropout
    return heads | {VIDEO: Head(rows, dropout, head, pooling="frames", backbone=backbone)}


def _weights() -> list[Weight]:
    """The rows of all heads over time, of which a model has some."""
    return [
        *norm("temporal.norm", "temporal/norm"),
        *linear("temporal.convolution", "temporal/convolution"),
        *norm("temporal.motion_norm", "temporal/motion_norm"),
        Weight("temporal.positions", "temporal/positions"),
        *linear("temporal.projection", "temporal/projection"),
        *block("temporal.block", "temporal/block", BLOCK),
    ]
