"""Presets for pairs: of two texts, or of an image and a text; see `finetune_tf.presets`."""

from typing import Any

from finetune_tf.base.spelling import names_checked
from finetune_tf.training.presets import (
    LOSSES,
    Rate,
    compile_arguments,
    preset_options,
)


@names_checked(also=preset_options)
def similarity(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    *,
    scale: float = 20.0,
    **options: Any,
) -> dict[str, Any]:
    """Contrastive loss on pairs of texts, for feature extraction; see `PairSimilarity`.

    With scores, the cosine similarities of the pairs are trained to have the order of the scores,
    which may be on any scale (CoSENT, Su 2022). Without scores, each pair counts as similar, and
    all other texts of the batch serve as negatives (Henderson et al. 2017). So a batch should not
    contain the same text twice, and larger batches provide more negatives.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        scale: Factor on the cosine similarities, the inverse of a temperature.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> encoder = ft.load(checkpoint, "feature-extraction")
        >>> encoder.compile(**ft.presets.similarity(scale=10.0))
        >>> encoder.loss.scale
        10.0
    """
    return compile_arguments(LOSSES["vectors"](scale), [], optimizer, learning_rate, **options)


@names_checked(also=preset_options)
def contrastive(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    **options: Any,
) -> dict[str, Any]:
    """CLIP's loss on pairs of images and texts; see `ContrastiveLoss`.

    Each image is to be found by its text among all images of the batch, and each text by its image
    (Radford et al. 2021). Larger batches are harder, and teach more.

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> ft.presets.contrastive(learning_rate=1e-5)["loss"].mode
        'softmax'
    """
    return compile_arguments(LOSSES["pairs"](), [], optimizer, learning_rate, **options)


@names_checked(also=preset_options)
def pairwise_sigmoid(
    optimizer: str = "adamw",
    learning_rate: Rate = "auto",
    **options: Any,
) -> dict[str, Any]:
    """SigLIP's loss on pairs of images and texts; see `ContrastiveLoss`.

    Whether an image and a text match is a decision of its own for each of both in a batch (Zhai et
    al. 2023).

    Args:
        optimizer: As for `cross_entropy`.
        learning_rate: As for `cross_entropy`.
        **options: As for `cross_entropy`.

    Returns:
        A dict with optimizer, loss and metrics, and objectives if there are any, for
        `model.compile`.

    Example:
        >>> ft.presets.pairwise_sigmoid()["loss"].mode
        'sigmoid'
    """
    return compile_arguments(LOSSES["independent_pairs"](), [], optimizer, learning_rate, **options)
