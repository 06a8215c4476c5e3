"""The statistics of batch normalisation: whether training moves them, and measuring them anew."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures import BatchNorm
from finetune_tf.base.keras_internals import all_layers, own_variables
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import DataError, ModelError
from finetune_tf.graph.stages import require_model
from finetune_tf.graph.traces import forget_traces
from finetune_tf.messages import say
from finetune_tf.training.freezing import selected_ids
from finetune_tf.training.selector import Selector


@names_checked
def train_batch_statistics(
    model: keras.Model, selector: Selector | None = None, on: bool = True
) -> None:
    """Lets training use and store the statistics of batches, as `model.train()` does in PyTorch.

    By default batch normalisation uses the stored mean and variance of the checkpoint in training
    too, and does not change them. That suits small batches and little data. With statistics that
    are trained, a training step normalises with the mean and variance of its batch, and moves the
    stored ones towards them. This suits large batches (16 images or more) of images that look
    different from those of the pretraining, and training from random weights.

    It takes effect at any time, even during a fit, and `.keras` files keep it. The statistics of a
    layer whose own `gamma` and `beta` are frozen never move.

    Args:
        model: A built model of a family with batch normalisation: resnet, mobilenet.
        selector: The stages whose statistics change, such as `ft.select.blocks(2)`; by default all.
            The other ones keep their state.
        on: False makes the statistics fixed again.

    Raises:
        ModelError: If the model has no such layers, the selector selects none of them, or the
            checkpoint was folded: its statistics are 0 and 1, and those of a batch would give
            other outputs. Call `measure_batch_statistics` first.

    Example:
        >>> resnet = ft.load(
        ...     {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
        ...     "image-classification",
        ...     labels=["cat", "dog"],
        ...     image_size=32,
        ... )
        >>> ft.train_batch_statistics(resnet)
        >>> resnet.get_layer("embeddings").layer.norm.learns_statistics
        True
    """
    norms = _norms_of(model)
    chosen = norms
    if selector is not None:
        selected = selected_ids(model, selector)
        chosen = [n for n in norms if any(id(v) in selected for v in own_variables(n))]
        if not chosen:
            raise ModelError(
                f"The selector {selector} selects no batch normalisation of {model.name!r}."
            )
    if on and _is_folded(model, norms):
        raise ModelError(
            "All stored statistics are a mean of 0 and a variance of 1: this checkpoint was folded "
            "into its convolutions, or was never trained. With statistics of batches the model "
            "would compute something else. Measure the statistics first, which keeps its outputs: "
            "ft.measure_batch_statistics(model, train.batches(model))."
        )
    for norm in chosen:
        norm.learns_statistics = on
    for traced in forget_traces(model):
        traced.make_train_function()  # immediately, because a fit may be running
    trained = sum(norm.learns_statistics for norm in norms)
    say(f"The statistics of {trained} of {len(norms)} batch normalisations are trained.")


@names_checked
def measure_batch_statistics(model: keras.Model, batches: Iterable[Any]) -> None:
    """Replaces the stored statistics of batch normalisation by those of the given images.

    Scales and offsets (`gamma`, `beta`) change as well, such that the outputs of the model stay the
    same up to rounding. Afterwards, normalising with the statistics of a batch gives nearly the
    same outputs too. A checkpoint whose batch normalisation was folded into its convolutions needs
    this before `train_batch_statistics`.

    Args:
        model: A built model of a family with batch normalisation.
        batches: Batches as for `fit`, such as `train.batches(model)`; targets are not read. A few
            hundred images that represent the data are enough.

    Raises:
        ModelError: If the model has no such layers.
        DataError: If there are no batches.

    Example:
        >>> resnet = ft.load(
        ...     {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
        ...     "image-classification",
        ...     labels=["cat", "dog"],
        ...     image_size=32,
        ... )
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
        >>> before = np.asarray(resnet(images))
        >>> ft.measure_batch_statistics(resnet, [images])
        >>> np.allclose(resnet(images), before, atol=1e-5)
        True
    """
    norms = _norms_of(model)
    moments = [_Moments() for _ in norms]
    images = 0
    for norm, of_norm in zip(norms, moments, strict=True):
        norm.observer = of_norm.add
    try:
        for batch in batches:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(batch)
            model(inputs, training=False)
            pixels = keras.tree.flatten(inputs)[0]
            images += len(pixels)
            noun = "image" if len(pixels.shape) == 4 else "video"
    finally:
        for norm in norms:
            norm.observer = None
    if not images:
        raise DataError("There are no batches of images to measure statistics on.")
    for norm, of_norm in zip(norms, moments, strict=True):
        _replace_statistics(norm, of_norm)
    say(
        f"The statistics of {len(norms)} batch normalisations were measured on {images:,} "
        f"{noun}{'s' * (images != 1)}."
    )


class _Moments:
    """The mean and the variance of each channel over several batches."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # the sum of squared distances to the mean

    def add(self, x: Any) -> None:
        """Adds the values of a batch (B, H, W, C); Chan et al. 1979."""
        wide = ops.cast(x, "float32")
        mean = ops.mean(wide, axis=(0, 1, 2))
        variance = np.asarray(ops.mean(ops.square(wide - mean), axis=(0, 1, 2)), "float64")
        count, total = int(np.prod(x.shape[:-1])), self.count + int(np.prod(x.shape[:-1]))
        step = np.asarray(mean, "float64") - self.mean
        self.squares += variance * count + step**2 * (self.count * count / total)
        self.mean, self.count = self.mean + step * (count / total), total

    @property
    def variance(self) -> Any:
        """The unbiased variance."""
        return self.squares / max(self.count - 1, 1)


def _replace_statistics(norm: BatchNorm, moments: _Moments) -> None:
    old = {
        name: np.asarray(getattr(norm, name), "float64")
        for name in ("gamma", "beta", "mean", "variance")
    }
    epsilon = norm.get_config()["epsilon"]
    deviation = np.sqrt(old["variance"] + epsilon)
    # In float32, as it will be stored.
    mean = moments.mean.astype("float32")
    variance = moments.variance.astype("float32")
    norm.gamma.assign(old["gamma"] * np.sqrt(variance.astype("float64") + epsilon) / deviation)
    norm.beta.assign(old["beta"] + old["gamma"] * (mean - old["mean"]) / deviation)
    norm.mean.assign(mean)
    norm.variance.assign(variance)


def _norms_of(model: keras.Model) -> list[BatchNorm]:
    require_model(model)
    found = {id(layer): layer for layer in all_layers(model) if isinstance(layer, BatchNorm)}
    if not found:
        raise ModelError(
            f"{model.name!r} has no batch normalisation of finetune_tf; the families resnet, "
            "mobilenet_v1 and mobilenet_v2 have. Keras's own BatchNormalization trains its "
            "statistics as long as it is trainable."
        )
    return list(found.values())


def _is_folded(model: keras.Model, norms: list[BatchNorm]) -> bool:
    """Whether a checkpoint was loaded whose statistics are those of no data at all."""
    pretrained = getattr(getattr(model, "info", None), "pretrained", None) or ()
    return any(norm.mean.path in pretrained for norm in norms) and all(
        not np.any(norm.mean) and np.allclose(norm.variance, 1.0, rtol=0, atol=0.01)
        for norm in norms
    )
