"""The record that describes a model family, and checks of configs that families share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from finetune_tf.architectures import Backbone
from finetune_tf.base.arguments import shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families.config_values import COMMON, OneOf, Rule, checked_values
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import Tensors


@dataclass(frozen=True)
class Head:
    """The layers that the PyTorch model for a task puts on top of the family's backbone.

    Attributes:
        weights: Weight table of the tensors outside of the backbone, with their full names. The
            output layer ("classifier", "vocabulary_bias", "lm_head") is loaded only from a head
            that was trained for the requested labels; other layers from any checkpoint that has
            them.
        dropout: Dropout rate before the output layer.
        transform: Builds the layer below the output layer when called with `dtype=`; None if there
            is no such layer. On pooled features it is the family's own pooler, named "pooler".
        pooling: Input of the family's own pooler: the first token, the mean over tokens, the last
            token, or the first token and the mean over the others ("cls_and_mean"). With "late",
            the pooler is applied to every token, and the mean is that of its outputs. With
            "frames", the transform combines the features of all frames of a clip.
        output_bias: Whether the output layer of a classifier has a bias.
        tied: Whether the decoder of a language model, masked or causal, is the token embedding
            table.
        has_logits_bias: Whether the scores of an encoder-decoder's tokens have a constant bias, the
            buffer `final_logits_bias` of transformers; or the logits of pairs of images and texts a
            bias that is trained, so that each pair is a problem of its own (SigLIP).
        class_name: The PyTorch class, where it is not that of the family for the task; empty if
            there is none.
        backbone: Builds the backbone of models for this task, as `Family.backbone` does for all
            other tasks; None for that one.
    """

    weights: Sequence[Weight] = ()
    dropout: float = 0.0
    transform: Callable[..., keras.layers.Layer] | None = None
    pooling: Literal["cls", "mean", "last", "late", "cls_and_mean", "frames"] = "cls"
    output_bias: bool = True
    tied: bool = True
    has_logits_bias: bool = False
    class_name: str | None = None
    backbone: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Family:
    """How configs and weights of one `model_type` are read and written.

    A complete config has a value for every key of `defaults`; `complete` returns it.

    Attributes:
        model_type: The `model_type` of config.json.
        class_prefix: Prefix of the classes of transformers: "Bert" as in `BertModel`.
        tensor_prefix: Prefix of the backbone's tensors in task models: "bert"; may be empty.
        defaults: Default values of the config keys that affect results and that config.json may
            omit.
        rules: Type and range of every config key that the family reads.
        supported: Config keys of which only some values are supported, with these values.
        dropout_keys: Config keys that contain dropout rates.
        backbone: Builds the embeddings and blocks from a complete config and a dtype policy; for
            images also from `pixels=`, a `PixelNormalization`.
        weights: Returns the weight table of the backbone, including a pooler inside it, for a
            complete config.
        heads: Returns the head of each supported task for a complete config.
        max_length: Returns the maximum length of a text in tokens for a complete config; None for
            images.
        check: Raises CheckpointError if keys of a complete config contradict each other.
        class_names: Names of PyTorch classes that are not `class_prefix` with the task's suffix,
            by that suffix; "{prefix}" in a name stands for `class_prefix`.
        complete_from_weights: Changes a complete config according to the tensors of the checkpoint,
            where these decide what config.json leaves open.
        image_processor: For image models, the image processor of transformers whose settings are
            the defaults; None for models of texts.
        own_keys: Config keys that transformers does not have, each with the value for which the
            model is that of transformers; a key that a config may lack has the value None.
        for_task: Returns a complete config with the keys that models for a task have, from the name
            of the task and a complete config.
        has_old_classes: Whether `compat` has classes of transformers 4 for the family.
        towers: For a model of several encoders, the keys of its config with the config of each, and
            a function from that config to its family.
        tower_keys: Keys of the config that are written to the configs of the towers as well, where
            the classes of PyTorch for one tower read them.
        aliases: Other names that transformers accepts for config keys: "num_attention_heads" means
            "n_head" in the config of a GPT-2.
        pads_texts: Whether all texts are padded to the maximum length, which changes the outputs.
    """

    model_type: str
    class_prefix: str
    tensor_prefix: str
    defaults: Mapping[str, Any]
    rules: Mapping[str, Rule]
    supported: Mapping[str, tuple]
    dropout_keys: tuple[str, ...]
    backbone: Callable[..., Backbone]
    weights: Callable[[dict], list[Weight]]
    heads: Callable[[dict], dict[str, Head]]
    max_length: Callable[[dict], int | None] = lambda config: config["max_position_embeddings"]
    check: Callable[[dict], None] = lambda config: None
    class_names: Mapping[str, str] = field(default_factory=dict)
    complete_from_weights: Callable[[dict, Tensors], dict] = lambda config, tensors: config
    image_processor: str | None = None
    own_keys: Mapping[str, Any] = field(default_factory=dict)
    for_task: Callable[[str, dict], dict] = lambda task, config: config
    has_old_classes: bool = True
    towers: Mapping[str, Callable[[Mapping[str, Any]], "Family"]] = field(default_factory=dict)
    tower_keys: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    pads_texts: bool = False

    def is_in_transformers(self, config: Mapping[str, Any]) -> bool:
        """Returns whether transformers has the model of a complete config."""
        return all(config.get(key) == value for key, value in self.own_keys.items())

    def class_name(self, suffix: str) -> str:
        """The PyTorch class for a task, such as "BertForSequenceClassification".

        Args:
            suffix: Of the task: "ForSequenceClassification".
        """
        return self.class_names.get(suffix, "{prefix}" + suffix).format(prefix=self.class_prefix)

    def complete(self, config: Mapping[str, Any], where: str = "") -> dict:
        """Adds the defaults to a config, and checks all values.

        Args:
            config: The content of config.json.
            where: Source of the values for error messages: the path of the file.

        Raises:
            CheckpointError: If a value has a wrong type, is out of range, is not supported by this
                family, or contradicts another key.

        Example:
            >>> from finetune_tf.families import FAMILIES
            >>> FAMILIES["bert"].complete({"hidden_size": 384})["num_hidden_layers"]
            12
        """
        try:
            config = self._with_own_keys(config)
            complete = {
                **self.defaults,
                **checked_values(config, {**COMMON, **self.rules}, self.defaults),
            }
            for key, family_of in self.towers.items():
                complete[key] = _complete_tower(config, key, family_of)
                complete[key] |= {name: complete[name] for name in self.tower_keys}
            self._check(complete, config)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}" if where else str(error)) from None
        return complete

    def _with_own_keys(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a config with the keys of the family in place of their aliases.

        Raises:
            CheckpointError: If a key and its alias have different values.
        """
        own = dict(config)
        for alias, key in self.aliases.items():
            value = own.pop(alias, None)
            if value is None:
                continue
            if own.get(key) is None:
                own[key] = value
            elif own[key] != value and key != "encoder_layers":
                # In configs of BART that transformers 4 wrote, num_hidden_layers has no meaning.
                raise CheckpointError(
                    f"The config keys {key!r} and {alias!r} mean the same, but have the values "
                    f"{shown(own[key])} and {shown(value)}. Remove the wrong one."
                )
        return own

    def _check(self, complete: dict, given: Mapping[str, Any]) -> None:
        config = {"model_type": self.model_type, **complete}
        if config.get("quantization_config"):
            raise CheckpointError(
                "The config key 'quantization_config' states that the weights are quantized: "
                f"{shown(config['quantization_config'])}. finetune_tf trains only float weights: "
                "use the checkpoint that is not quantized."
            )
        if config.get("per_layer_config"):
            raise CheckpointError(
                "The config key 'per_layer_config' gives blocks settings of their own: "
                f"{shown(config['per_layer_config'])}. finetune_tf supports only models whose "
                "blocks follow one config."
            )
        for key, values in self.supported.items():
            if key in config and not OneOf(values).accepts(config[key]):
                raise unsupported(config, key, ", ".join(map(repr, values)))
        # Only an explicit id is checked. A default beyond a small vocabulary is harmless.
        padding = config["pad_token_id"] if "pad_token_id" in given else None
        if padding is not None and padding >= config["vocab_size"]:
            raise unsupported(
                config, "pad_token_id", f"ids below the vocab_size, {config['vocab_size']}"
            )
        self.check(config)

    def head(self, task: str, config: dict) -> Head:
        """Returns the head for a task.

        Raises:
            CheckpointError: If the family does not support the task.
        """
        heads = self.heads(config)
        if task not in heads:
            raise CheckpointError(
                f"{self.model_type} models have no head for the task {task!r}; they have: "
                f"{', '.join(heads)}."
            )
        return heads[task]


def _complete_tower(
    config: Mapping[str, Any], key: str, family_of: Callable[[Mapping[str, Any]], Family]
) -> dict:
    """Returns the complete config of one of several encoders.

    Configs of early versions of transformers have the values under another key as well, which
    replaces them.
    """
    values: dict[str, Any] = {}
    for each in (key, f"{key}_dict"):
        given = config.get(each) or {}
        if not isinstance(given, Mapping):
            raise CheckpointError(
                f"The config key {each!r} has to be the config of an encoder, found {shown(given)}."
            )
        values |= given
    family = family_of(values)
    return {"model_type": family.model_type} | family.complete(values, f"the config key {key!r}")


def unsupported(config: Mapping[str, Any], key: str, supported: str) -> CheckpointError:
    """Returns the error for a config value that is not supported.

    Args:
        config: A config with the key and with `model_type`.
        key: The config key.
        supported: Description of the supported values.
    """
    return CheckpointError(
        f"The config key {key!r} has the value {shown(config[key])}, which {config['model_type']} "
        f"models do not support here; supported: {supported}."
    )


def require_divisor(config: Mapping[str, Any], size_key: str, heads_key: str) -> None:
    """Checks that a number of heads or groups divides a size.

    Raises:
        CheckpointError: If it does not.
    """
    size, heads = config[size_key], config[heads_key]
    if size % heads:
        raise CheckpointError(
            f"The config key {heads_key!r} is {heads}, which does not divide {size_key!r} {size}."
        )


def first_of(config: Mapping[str, Any], *keys: str) -> Any:
    """Returns the value of the first key that is present and not None."""
    return next(config[key] for key in keys if config.get(key) is not None)
