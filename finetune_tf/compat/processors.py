"""Processors of images and texts from transformers, which return TensorFlow tensors."""

import functools
from typing import Any

from finetune_tf.checkpoints.return_tensors import to_tensorflow
from finetune_tf.compat.image_processors import image_processor
from finetune_tf.compat.tokenizers import old_style

_NAMES = ("AutoProcessor", "CLIPProcessor", "VisionTextDualEncoderProcessor")


class _TensorFlowMixin:
    """A mixin for processors with `return_tensors="tf"`, which transformers 5 lacks."""

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a processor, whose parts are those of `compat` as well."""
        return _load(cls.__bases__[-1], name, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Prepares images, texts, or both."""
        if kwargs.get("return_tensors") != "tf":
            return super().__call__(*args, **kwargs)
        kwargs["return_tensors"] = "np"
        return to_tensorflow(super().__call__(*args, **kwargs))


def is_processor(name: str) -> bool:
    """Whether a class of transformers 4 prepares images and texts.

    Args:
        name: The name of the class.
    """
    return name in _NAMES


def processor(name: str) -> type:
    """Returns the processor of transformers under a name for which `is_processor` is true.

    Args:
        name: The name of the class.
    """
    import transformers

    cls = getattr(transformers, name)
    if name.startswith("Auto"):
        return type(name, (), {"from_pretrained": staticmethod(functools.partial(_load, cls))})
    return _with_tensorflow(cls)


def _load(cls: type, name: Any, *args: Any, **kwargs: Any) -> Any:
    made = cls.from_pretrained(name, *args, **kwargs)
    reads_images = hasattr(made, "image_processor") or hasattr(made, "image_mean")
    if reads_images:
        images = image_processor("AutoImageProcessor").from_pretrained(name, **kwargs)
    if hasattr(made, "image_mean"):  # AutoProcessor returns the only part that there is
        return images
    tokenizer = getattr(made, "tokenizer", made)
    tokenizer.__class__ = old_style(type(tokenizer))
    if reads_images:
        made.image_processor, made.__class__ = images, _with_tensorflow(type(made))
    return made


@functools.cache
def _with_tensorflow(cls: type) -> type:
    return type(cls.__name__, (_TensorFlowMixin, cls), {"__module__": "finetune_tf.compat"})
