"""The old classes of single towers, and what they share with those of both: calls of a tower."""

from typing import Any, ClassVar

import keras

from finetune_tf.architectures import PIXELS
from finetune_tf.base.keras_internals import inputs_struct
from finetune_tf.base.values import is_float
from finetune_tf.compat.arguments import ORDER, inputs_of
from finetune_tf.compat.encoder import Part
from finetune_tf.compat.image_models import TFImageModel, above_pixels, channels_first
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.compat.outputs import ModelOutput, output_of
from finetune_tf.families.towers import CONFIG_KEYS
from finetune_tf.graph.hidden_states import state_outputs, unused_name
from finetune_tf.graph.traces import traces_of
from finetune_tf.model.pixel_inputs import complete_pixels

_PARTS = {"image": "vision_model", "text": "text_model"}


class Tower(Part):
    """A tower of a model, such as `model.vision_model`, which can be frozen and called.

    Args:
        model: An old class with towers.
        tower: "image" or "text".
    """

    def __init__(self, model: Any, tower: str) -> None:
        stages = [stage for stage in model.stages if stage.chain == tower]
        layers = [layer for stage in stages for layer in stage.layers]
        projection = f"{tower}_projection"
        super().__init__([layer for layer in layers if layer.name != projection], _PARTS[tower])
        self._get_model, self._tower = lambda: model, tower  # as in `Encoder`

    def __call__(self, *args: Any, **kwargs: Any) -> ModelOutput | tuple:
        """Returns the last hidden state and the pooled vector, without the projection."""
        order = (PIXELS,) if self._tower == "image" else ORDER
        return self._get_model().encode_by(self._tower, *inputs_of(args, kwargs, order))


class Towers(Part):
    """The part that holds both towers, such as `model.clip`, which is called like the model.

    Args:
        model: An old class with towers.
    """

    def __init__(self, model: Any) -> None:
        layers = [layer for stage in model.stages for layer in stage.layers]
        super().__init__(layers, model.family)
        self._get_model = lambda: model  # as in `Encoder`; Keras saves what is an attribute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the model returns."""
        return self._get_model()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Returns any other attribute, such as `vision_model`, from the model."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._get_model(), name)


class TowersMixin:
    """What the old classes with towers have in common."""

    def encode_by(self, tower: str, inputs: dict, kwargs: dict) -> ModelOutput | tuple:
        """Returns the last hidden state, the pooled vector and the states of one tower.

        Args:
            tower: "image" or "text".
            inputs: The inputs of the tower by name.
            kwargs: The other arguments of the call.
        """
        kwargs = dict(kwargs)
        out, as_dict = self._run_tower(tower, inputs, kwargs)
        output = states_output(out)
        return output if as_dict else output.to_tuple()

    def _run_tower(self, tower: str, inputs: dict, kwargs: dict) -> tuple[dict, bool]:
        """Returns the outputs of a tower, and whether the caller wants a `ModelOutput`."""
        interpolates = bool(kwargs.pop("interpolate_pos_encoding", None))
        states, attentions, as_dict = self._flags(kwargs)
        size = None
        if tower == "text":
            inputs = self._complete_texts(inputs)
        elif is_float(inputs.get(PIXELS)):
            pixels, size = self._complete_normalized(inputs, interpolates)
            inputs = {PIXELS: pixels}
        else:
            self._check_levels(inputs.get(PIXELS))
            inputs = complete_pixels(inputs, inputs_struct(self))
        name = f"{self._layer_name}_{tower}"
        model = _tower_model(self, tower, size, states, attentions, name)
        return model(inputs, **kwargs), as_dict

    @property
    def base_model(self) -> Towers:
        """The part that holds the towers in transformers 4, without a head above it."""
        return Towers(self)

    @property
    def vision_model(self) -> Tower:
        """The encoder of images."""
        return Tower(self, "image")

    @property
    def text_model(self) -> Tower:
        """The encoder of texts."""
        return Tower(self, "text")


class _OneTowerMixin(TowersMixin):
    """What the old classes of single towers have in common."""

    tower: ClassVar[str]

    @classmethod
    def _load_checkpoint(cls, checkpoint: Any, config: Any = None, **options: Any) -> Any:
        """Loads a checkpoint of both towers; a config may be that of the tower alone."""
        given = config.to_dict() if hasattr(config, "to_dict") else config
        if given and CONFIG_KEYS[cls.tower] not in given:
            config = {"model_type": cls.family, CONFIG_KEYS[cls.tower]: given}
            config |= {key: given[key] for key in ("projection_dim",) if key in given}
            checkpoint = config if hasattr(checkpoint, "keys") else checkpoint
        return super()._load_checkpoint(checkpoint, config, **options)

    def _run(self, inputs: dict, kwargs: dict, pooler: Any) -> tuple[dict, bool]:
        out, as_dict = self._run_tower(self.tower, inputs, kwargs)
        return {**out, "output": out["features"]}, as_dict

    def _output_fields(self, output: Any, last_hidden_state: Any) -> dict:
        return {}

    def _states_of(self, out: dict) -> dict:
        return dict(states_output(out))

    def parts(self) -> list:
        """The tower."""
        return [Tower(self, self.tower)]


class TFTextTower(_OneTowerMixin, TFPreTrainedModel):
    """A base class of the old classes of encoders of texts that belong to two towers."""

    tower = "text"


class TFImageTower(_OneTowerMixin, TFImageModel):
    """A base class of the old classes of encoders of images that belong to two towers."""

    tower = "image"


def states_output(out: dict) -> ModelOutput:
    """The output of a tower that transformers 4 returned."""
    names = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")
    values = {name: out[name] for name in names if name in out}
    return output_of(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def _tower_model(
    model: Any,
    tower: str,
    size: tuple[int, int] | None,
    hidden_states: bool,
    attentions: bool,
    name: str,
) -> keras.Model:
    """Returns a Functional model on the layers of one tower, with the outputs of transformers 4.

    Args:
        model: A model with towers, or with one of them.
        tower: "image" or "text".
        size: (H, W) of normalised images (B, C, H, W); None for levels (B, H, W, C).
        hidden_states: Whether to return the states that blocks begin and end with.
        attentions: Whether to return attention weights.
        name: The name of the new model.

    Returns:
        A model whose outputs are a dict with "features", the projected vectors; "pooler_output",
        the vectors below the projection; "last_hidden_state", and the states that were asked for.
    """
    models = traces_of(model)
    key = ("tower", tower, size, hidden_states, attentions, name)
    if key not in models:
        known = inputs_struct(model)
        inputs = {n: tensor for n, tensor in known.items() if (n == PIXELS) == (tower == "image")}
        projection = model.get_layer(f"{tower}_projection")
        encoder = keras.Model(inputs, projection.output)
        outputs = state_outputs(encoder, hidden_states, attentions)
        outputs |= {"features": projection.output, "pooler_output": projection.input}
        if size is not None:
            inputs, outputs = above_pixels(keras.Model(inputs, outputs), model._pixels, size)
        for state in ("last_hidden_state", "hidden_states"):
            if tower == "image" and state in outputs:  # those of convolutional networks
                outputs[state] = keras.tree.map_structure(channels_first, outputs[state])
        models[key] = keras.Model(inputs, outputs, name=unused_name(name))
    return models[key]
