"""Encoders of images as chains of stages: of patches (Dosovitskiy et al. 2021), and convolutional.

Shape legend: B batch, H height, W width, C channels, L tokens, D features.
"""

from collections.abc import Sequence

import keras

from finetune_tf.architectures.blocks import EncoderBlock
from finetune_tf.architectures.encoder import Backbone
from finetune_tf.architectures.layers import FirstToken
from finetune_tf.architectures.patches import PixelNormalization

#: The name of the input of image models.
PIXELS = "pixel_values"


def image_encoder(
    pixels: PixelNormalization,
    embeddings: keras.layers.Layer,
    blocks: Sequence[EncoderBlock],
    final_norm: keras.layers.Layer | None = None,
    start: keras.layers.Layer | None = None,
) -> Backbone:
    """Calls the layers of a vision transformer in order on symbolic inputs.

    Args:
        pixels: The normalisation of pixels, which knows the shape of the images.
        embeddings: The first stage, (B, H, W, C) to (B, L, D).
        blocks: The other stages.
        final_norm: Normalisation after the last block; None for no normalisation.
        start: Normalisation after the embeddings; None for no normalisation.
    """
    inputs = image_inputs(pixels)
    hidden = embeddings(pixels(inputs[PIXELS]))
    if start is not None:
        hidden = start(hidden)
    for block in blocks[:-1]:
        hidden = block(hidden)
    results = [
        blocks[-1](hidden),
        blocks[-1](FirstToken(name="first_token")(hidden), context=hidden),
    ]
    if final_norm is not None:
        results = [final_norm(result) for result in results]
    return Backbone(inputs, *results, embeddings)


def convolutional_encoder(
    pixels: PixelNormalization, layers: Sequence[keras.layers.Layer]
) -> Backbone:
    """Calls the stages of a convolutional network in order on symbolic inputs.

    Args:
        pixels: As for `image_encoder`.
        layers: The stages; the first one is the stem.
    """
    inputs = image_inputs(pixels)
    hidden = pixels(inputs[PIXELS])
    for layer in layers:
        hidden = layer(hidden)
    return Backbone(inputs, hidden, None, layers[0])


def image_inputs(pixels: PixelNormalization) -> dict[str, keras.KerasTensor]:
    """The symbolic input of an image model by its name: levels from 0 to 255, channels last."""
    return {PIXELS: keras.Input(pixels.shape_of_inputs, dtype="uint8", name=PIXELS)}
