"""The old classes of images: normalised numbers, channels first, as inputs and outputs.

Shape legend: B batch, C channels, H height, W width, L tokens, D features.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures import (
    PIXELS,
    EncoderBlock,
    PatchEmbeddings,
    PatchMerging,
    PixelNormalization,
    WindowAttention,
)
from finetune_tf.base.arguments import shown
from finetune_tf.base.keras_internals import all_layers, inputs_struct, run_graph
from finetune_tf.base.values import concrete, dtype_of, is_float
from finetune_tf.compat.arguments import IMAGES, inputs_of
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.compat.outputs import ModelOutput, output_of
from finetune_tf.errors import ModelError
from finetune_tf.graph.hidden_states import state_outputs, unused_name
from finetune_tf.graph.splitting import upper_part
from finetune_tf.graph.traces import traces_of
from finetune_tf.messages import warn
from finetune_tf.model.pixel_inputs import pixels_of

_CHANNELS_FIRST, _CHANNELS_LAST = (3, 1, 2), (2, 3, 1)  # of all axes but the first
# The pooler of these classes kept the axes of height and width.
_POOLERS_WITH_AXES = ("resnet",)
_STATES = ("hidden_states", "attentions", "reshaped_hidden_states")


class TFImageModel(TFPreTrainedModel):
    """A base class of the old classes that read images.

    `pixel_values` are what an image processor of transformers returns: normalised floats
    (B, C, H, W). The layers of the model are called above `pixels`, which would normalise levels.
    Levels (B, H, W, C) in uint8, as `Examples.batches` returns them, are accepted as well.
    """

    inputs_in_order = IMAGES

    def encode(self, *args: Any, **kwargs: Any) -> ModelOutput | tuple:
        """Returns what `model.vit(…)` returned: last hidden state and pooler output, if any."""
        inputs, kwargs = inputs_of(args, kwargs, self.inputs_in_order)
        out, as_dict = self._run(inputs, kwargs, True)
        names = ("last_hidden_state", "pooler_output")
        output = output_of(**{name: out.get(name) for name in names}, **self._states_of(out))
        return output if as_dict else output.to_tuple()

    def _run(self, inputs: dict, kwargs: dict, pooler: Any) -> tuple[dict, bool]:
        interpolates = kwargs.pop("interpolate_pos_encoding", None)
        states, attentions, as_dict = self._flags(kwargs)
        if attentions and self._has_groups:
            raise ModelError(
                f"output_attentions is not supported for {self.family} models. Leave it out."
            )
        size = None
        if is_float(pixels_of(inputs)):
            pixels, size = self._complete_normalized(inputs, bool(interpolates))
            inputs = {PIXELS: pixels}
        else:
            inputs = self._complete_inputs(inputs)
        is_bare = bool(pooler) or not self.task.output_layers
        name = None if pooler else self._layer_name
        model = _with_states(self, size, states, attentions, is_bare, name)
        return model(inputs, **kwargs), as_dict

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Overrides the Keras hook, which returns plain outputs, for normalised images too."""
        pixels = pixels_of(inputs)
        if not is_float(pixels):
            return super().call(inputs, training=training, mask=mask)
        options = {"training": training, "output_hidden_states": False, "output_attentions": False}
        return self._run({PIXELS: pixels}, options, None)[0]["output"]

    def _states_of(self, out: dict) -> dict:
        return {name: tuple(out[name]) for name in _STATES if name in out}

    @property
    def _has_groups(self) -> bool:
        """Whether the stages are groups of layers, so that attention weights are inside of them."""
        return not any(isinstance(layer, EncoderBlock) for layer in self.layers)

    @property
    def _pixels(self) -> PixelNormalization:
        return next(layer for layer in all_layers(self) if isinstance(layer, PixelNormalization))

    def check_inputs(self, inputs: Any) -> None:
        """Overrides the check of levels: normalised images are floats.

        Args:
            inputs: Images, or a dict with `pixel_values`.

        Raises:
            ModelError: If they have the wrong shape or dtype.
        """
        pixels = pixels_of(inputs)
        if is_float(pixels):
            self._check_normalized(pixels)
        else:
            super().check_inputs(inputs)

    def _complete_inputs(self, inputs: Any) -> dict:
        self._check_levels(pixels_of(inputs))
        return super()._complete_inputs(inputs)

    def _check_levels(self, pixels: Any) -> None:
        expected = self._pixels.input_shape_of_images
        shape = tuple(getattr(pixels, "shape", ()))
        if not hasattr(pixels, "shape"):
            raise ModelError(f"{self._expectation()}, found {shown(pixels)}.")
        if shape[1:] != expected and not is_float(pixels):
            raise ModelError(
                f"{self._expectation()}, found {dtype_of(pixels)} of the shape {shape}. Levels "
                f"from 0 to 255 in uint8 have the shape (batch, {', '.join(map(str, expected))})."
            )

    def _expectation(self) -> str:
        *size, channels = self._pixels.input_shape_of_images
        return (
            f"{PIXELS} must be normalised floats (batch, {channels}, {size[0]}, {size[1]}), as the "
            "image processor returns them: AutoImageProcessor.from_pretrained(…)(images, "
            'return_tensors="tf")'
        )

    def _check_normalized(self, pixels: Any) -> None:
        channels = self._pixels.input_shape_of_images[-1]
        shape = tuple(pixels.shape)
        if len(shape) == 4 and shape[1] in (channels, None):
            self._warn_of_levels(pixels)
            return
        is_last = len(shape) == 4 and shape[-1] == channels
        hint = " Write keras.ops.transpose(images, (0, 3, 1, 2))." if is_last else ""
        raise ModelError(f"{self._expectation()}, found the shape {shape}.{hint}")

    def _warn_of_levels(self, pixels: Any) -> None:
        """Warns of images that are far beyond the range of normalised numbers."""
        array = concrete(pixels)
        if array is None or not array.size:
            return
        values = self._pixels.get_config()
        ends = np.array([0, 255])[:, None] * values["scale"]
        highest = np.abs((ends - np.array(values["mean"])) / np.array(values["stddev"])).max()
        found = np.abs(array).max()
        if found > 10 * highest:
            warn(
                f"{PIXELS} has values up to {found:.4g}, but the image processor of this "
                f"checkpoint returns numbers up to {highest:.3g}. The images are most likely not "
                "normalised."
            )

    def _complete_normalized(self, inputs: Any, interpolates: bool) -> tuple[Any, tuple[int, int]]:
        """Returns images (B, C, H, W) as float32, and their size."""
        pixels = pixels_of(inputs)
        self._check_normalized(pixels)
        own = tuple(self._pixels.input_shape_of_images[:2])
        size = tuple(pixels.shape[2:])
        if None in size:
            if keras.utils.is_keras_tensor(pixels):
                raise ModelError(
                    f"{self._expectation()}, found the shape {tuple(pixels.shape)}. Give the size "
                    f"of the images: keras.Input(({pixels.shape[1]}, {own[0]}, {own[1]}))."
                )
            # A dataset of unknown shapes, whose images must have the size of the model.
            import tensorflow as tf

            size = own
            pixels = tf.ensure_shape(pixels, (None, self._pixels.input_shape_of_images[-1], *own))
        self._check_size(size, own, interpolates)
        return (
            pixels if keras.utils.is_keras_tensor(pixels) else ops.cast(pixels, "float32")
        ), size

    def _check_size(self, size: tuple[int, int], own: tuple[int, int], interpolates: bool) -> None:
        if size == own:
            return
        layers = list(all_layers(self))
        change = f"from_pretrained(…, image_size={size[0] if size[0] == size[1] else size})"
        start = (
            f"The images have {size[0]} x {size[1]} pixels, but the model reads {own[0]} x {own[1]}"
        )
        if any(isinstance(layer, WindowAttention) for layer in layers):
            raise ModelError(f"{start}. Load it for images of this size: {change}.")
        patches = [layer for layer in layers if isinstance(layer, PatchEmbeddings)]
        if patches and not interpolates:
            raise ModelError(
                f"{start}. Write interpolate_pos_encoding=True in the call, or load the model for "
                f"images of this size: {change}."
            )


def _with_states(
    model: TFImageModel,
    size: tuple[int, int] | None,
    hidden_states: bool,
    attentions: bool,
    is_bare: bool,
    name: str | None,
) -> keras.Model:
    """Returns a Functional model on the layers of an old class, with the outputs of that class.

    Args:
        model: The model.
        size: (H, W) of normalised images (B, C, H, W); None for levels (B, H, W, C).
        hidden_states: Whether to return the states that stages begin and end with.
        attentions: Whether to return attention weights.
        is_bare: Whether to return the last hidden state and the pooled vector.
        name: The name of the new model; None for that of `model`.
    """
    models = traces_of(model)
    key = ("states of images", size, hidden_states, attentions, is_bare, name)
    if key not in models:
        outputs = {"output": model.outputs[0]}
        if is_bare or hidden_states or attentions:
            outputs |= state_outputs(model, hidden_states, attentions)
        if is_bare:
            outputs["pooler_output"] = _pooled(model)
        else:
            outputs.pop("last_hidden_state", None)
        outputs = {n: tensor for n, tensor in outputs.items() if tensor is not None}
        inputs = inputs_struct(model)
        if size is not None:
            inputs, outputs = above_pixels(keras.Model(inputs, outputs), model._pixels, size)
        _to_old_shapes(outputs, model)
        models[key] = keras.Model(inputs, outputs, name=unused_name(name or model.name))
    return models[key]


def _to_old_shapes(outputs: dict[str, Any], model: TFImageModel) -> None:
    """Changes the shapes of states and pooled vectors to those of the old classes, in place."""
    states = outputs.get("hidden_states")
    is_swin = any(isinstance(layer, WindowAttention) for layer in all_layers(model))
    if states is not None and is_swin:
        outputs["reshaped_hidden_states"] = _reshaped(model, states)
    for name in ("last_hidden_state", "hidden_states", "reshaped_hidden_states"):
        if name in outputs:
            outputs[name] = keras.tree.map_structure(channels_first, outputs[name])
    if "pooler_output" in outputs and model.family in _POOLERS_WITH_AXES:
        pooled = outputs["pooler_output"]
        reshape = keras.layers.Reshape((pooled.shape[-1], 1, 1), dtype=pooled.dtype)
        outputs["pooler_output"] = reshape(pooled)
        if not model.task.output_layers:
            outputs["output"] = outputs["pooler_output"]


def above_pixels(
    graph: keras.Model, pixels: PixelNormalization, size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a symbolic input (B, C, H, W) and the outputs that a model computes of it."""
    channels = pixels.input_shape_of_images[-1]
    given = keras.Input((channels, *size), dtype="float32", name=PIXELS)
    normalized = keras.layers.Permute(_CHANNELS_LAST, dtype=pixels.dtype_policy)(given)
    upper = keras.Model(*upper_part(graph, {"normalized": pixels.output}))
    return {PIXELS: given}, run_graph(upper, [normalized], lambda operation: operation)


def _pooled(model: TFImageModel) -> Any:
    """The symbolic vector (B, D) of the bare class; None if it has a pooler of its own.

    The classifiers of transformers do not have the pooler of ViT, so it is not returned there.
    """
    if not model.task.output_layers:
        return model.outputs[0]
    if model.get_layer("pooling").mode == "cls":
        return None
    return model.get_layer("classifier").input


def channels_first(tensor: Any) -> Any:
    """Moves the channels of features (B, H, W, C) to the front; tokens stay as they are."""
    if len(tensor.shape) != 4:
        return tensor
    return keras.layers.Permute(_CHANNELS_FIRST, dtype=tensor.dtype)(tensor)


def _merges(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, PatchMerging)


def _reshaped(model: TFImageModel, states: list[Any]) -> list[Any]:
    """Returns the hidden states (B, L, D) of a Swin as images (B, H, W, D)."""
    layers = list(all_layers(model))
    patch = next(layer.patch_size for layer in layers if isinstance(layer, PatchEmbeddings))
    size = model._pixels.input_shape_of_images[:2]
    grid = [-(-of_image // of_patch) for of_image, of_patch in zip(size, patch, strict=True)]
    grids = [grid]
    for stage in model.stages:
        if stage.role == "block":
            if any(map(_merges, all_layers(stage.layers[0]))):
                grid = [-(-count // 2) for count in grid]
            grids.append(grid)
    return [
        keras.layers.Reshape((*grid, state.shape[-1]), dtype=state.dtype)(state)
        for grid, state in zip(grids, states, strict=True)
    ]
