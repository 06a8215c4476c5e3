"""What configs of image models have in common: sizes, rules, and the defaults of preprocessing."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.families import config_values as values
from finetune_tf.families.config_values import Predicate


def _is_size(value: Any) -> bool:
    sizes = value if isinstance(value, list | tuple) else [value]
    return len(sizes) in (1, 2) and all(map(values.FEATURES.accepts, sizes))


SIZE = Predicate("a number of pixels, or the height and width", _is_size)


def _is_list_of(rule: Any, value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(rule.accepts, value))


CHANNELS = Predicate(
    "a list of numbers of channels", lambda value: _is_list_of(values.FEATURES, value)
)
DEPTHS = Predicate("a list of numbers of blocks", lambda value: _is_list_of(values.DEPTH, value))

#: The number of frames of a clip, or of a part of it.
FRAMES = values.integer(4096)

RULES = {
    "image_size": SIZE,
    "num_channels": values.OneOf((3,)),  # images are decoded as red, green and blue
    "initializer_range": values.STDDEV,
}


def pair(size: Any) -> tuple[int, int]:
    """Returns (height, width) of a size that may be a single number.

    Example:
        >>> from finetune_tf.families.image_values import pair
        >>> pair(224), pair([240, 320])
        ((224, 224), (240, 320))
    """
    sizes = tuple(size) if isinstance(size, list | tuple) else (size,)
    return (sizes[0], sizes[-1])


def image_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns (height, width) of the images that a config names; None if it names none."""
    return pair(config["image_size"]) if config.get("image_size") else None
