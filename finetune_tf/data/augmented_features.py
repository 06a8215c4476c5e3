"""Features of changed images: a fixed number of variants of each image, computed once."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune_tf.architectures import PIXELS
from finetune_tf.base.arguments import shown
from finetune_tf.data.augmentation import Augmentation
from finetune_tf.data.rows import VariantRows, reader
from finetune_tf.errors import ArgumentError, CacheError
from finetune_tf.images.prepared import make_store
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import Feature

_BATCH = 64  # images that are changed together; the changes depend on it


def check_augment(model: Any, shuffle: bool, augment: Any, variants: int | None) -> None:
    """Checks whether `augment=` and `augment_variants=` fit the batches of a model.

    Raises:
        ArgumentError: If they do not.
    """
    is_cached = hasattr(model, "cached_features")
    if variants is not None and (augment is None or not is_cached):
        raise ArgumentError(
            "augment_variants= is for augment= with cached features, which are computed once for "
            "each variant of an image; without cache_features, each epoch has new changes. Leave "
            "augment_variants out."
        )
    if augment is None:
        return
    if not shuffle:
        raise ArgumentError(
            "augment= is for training: write batches(model, shuffle=True, augment=…). Without "
            "shuffle=True, batches are for evaluation, whose images must stay as they are."
        )
    if is_cached and variants is None:
        raise ArgumentError(
            "Cached features are computed once, for a fixed number of variants of each image: "
            "write batches(learner, shuffle=True, augment=…, augment_variants=4), which takes four "
            "times the memory. Or train the model without cache_features, so that each epoch has "
            "new changes."
        )


def cached_variants(
    encoded: Encoded, model: Any, augmentation: Augmentation, variants: int, seed: int, name: str
) -> dict[str, Feature]:
    """Returns the features of the variants of all images, whose rows are `VariantRows`.

    Args:
        encoded: Images that were prepared for the model.
        model: A model with `cached_features`.
        augmentation: Changes the images.
        variants: Variants of each image.
        seed: Determines the changes, together with the number of the variant.
        name: The name of the examples, for messages.

    Raises:
        ArgumentError: If the augmentation mixes the images of a batch.
        CacheError: If the model also reads images above its frozen stages, or there is no room.
    """
    if augmentation.mixing is not None:
        raise ArgumentError(
            f"augment={shown(augmentation.mixing)} mixes the images of each batch and their "
            "labels, so features of single images cannot be stored for it. Leave it out, or train "
            "the model without cache_features."
        )
    if PIXELS in {tensor.name for tensor in model.inputs}:
        raise CacheError(
            "The stages that are trained read the images themselves, so their changed features "
            "cannot be stored alone. Train the model without cache_features."
        )
    found = []
    pixels = encoded.inputs[PIXELS]
    for number, feature in enumerate(variants_of(pixels, augmentation, variants, seed), 1):
        changed = dataclasses.replace(encoded, inputs=encoded.inputs | {PIXELS: feature})
        found.append(model.cached_features(changed, f"variant {number} of {variants} of {name}"))
    return {
        key: dataclasses.replace(first, rows=VariantRows([each[key].rows for each in found]))
        for key, first in found[0].items()
    }


def variants_of(
    pixels: Feature, augmentation: Augmentation, variants: int, seed: int
) -> Iterator[Feature]:
    """Yields the changed images of each variant, (rows, H, W, 3) uint8.

    Args:
        pixels: The prepared images.
        augmentation: Changes them.
        variants: How many variants.
        seed: Determines the changes, together with the number of the variant.

    Raises:
        CacheError: If there is no room for the images of a variant.
    """
    import tensorflow as tf

    rows, read = len(pixels), reader(pixels, None)

    def batch(start: tf.Tensor) -> dict[str, tf.Tensor]:
        return {PIXELS: read(tf.range(start, tf.minimum(start + _BATCH, rows)), None)}

    plain = tf.autograph.experimental.do_not_convert
    batches = tf.data.Dataset.range(0, rows, _BATCH).map(plain(batch))
    # A generator for each variant, so that the first ones do not depend on how many there are.
    seeds = [
        np.random.default_rng((seed, variant, 2)).integers(2**31 - 1, size=(-(-rows // _BATCH), 2))
        for variant in range(variants)
    ]
    changed = augmentation(batches.repeat(variants), np.concatenate(seeds)).as_numpy_iterator()
    for _ in range(variants):
        store = make_store((rows, *pixels[0].shape))
        if store is None:
            raise CacheError(
                f"There is no room for {rows:,} changed images in the folder of temporary files. "
                "Make room there, or train the model without cache_features."
            )
        for start in range(0, rows, _BATCH):
            store[start : start + _BATCH] = next(changed)[PIXELS]
        yield Feature(store, axis=None, dtype="uint8")
