"""Image processors of transformers that return TensorFlow tensors, and their older names."""

import functools
from typing import Any

from finetune_tf.checkpoints.return_tensors import to_tensorflow

_OLD, _NEW = "FeatureExtractor", "ImageProcessor"
_ON_PILLOW = "Pil"  # the suffix of processors on Pillow in transformers 5


class _TensorFlowMixin:
    """A mixin for image processors with `return_tensors="tf"`, which transformers 5 lacks."""

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Prepares images; every call of an image processor does."""
        if kwargs.get("return_tensors") != "tf":
            return super().preprocess(images, *args, **kwargs)
        kwargs["return_tensors"] = "np"
        return to_tensorflow(super().preprocess(images, *args, **kwargs))


def is_image_processor(name: str) -> bool:
    """Whether a class of transformers 4 prepares images: `ViTImageProcessor`, AutoImageProcessor.

    Args:
        name: The name of the class. Before 2023 it ended in FeatureExtractor.
    """
    return name.removesuffix(_ON_PILLOW).endswith(_NEW) or _processor_name(name) is not None


def image_processor(name: str) -> type:
    """Returns the image processor of transformers under a name of transformers 4.

    Args:
        name: As for `is_image_processor`.
    """
    import transformers

    name = _processor_name(name) or name.removesuffix(_ON_PILLOW)
    if name.startswith("Auto"):
        return type(name, (), {"from_pretrained": staticmethod(_load)})
    # Those on Pillow, which transformers 4 used; others need torchvision and return no arrays.
    return _with_tensorflow(
        getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    )


def _processor_name(name: str) -> str | None:
    """The present name of a feature extractor of images; None for other classes."""
    import transformers

    new = f"{name.removesuffix(_OLD)}{_NEW}"
    return new if name.endswith(_OLD) and hasattr(transformers, new) else None


def _load(*args: Any, **kwargs: Any) -> Any:
    import transformers

    for name in ("use_fast", "backend"):
        kwargs.pop(name, None)
    processor = transformers.AutoImageProcessor.from_pretrained(*args, backend="pil", **kwargs)
    processor.__class__ = _with_tensorflow(type(processor))
    return processor


@functools.cache
def _with_tensorflow(cls: type) -> type:
    return type(cls.__name__, (_TensorFlowMixin, cls), {"__module__": "finetune_tf.compat"})
