"""What families of two encoders have in common: one of images and one of texts, in two chains.

The encoders are families of their own, whose backbones and weight tables are used under names with
a prefix: the variable "block_0/…" of the encoder of images is "image_block_0/…" here, and its
tensors begin with "vision_model.".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras

from finetune_tf.architectures import Backbone, PixelNormalization, Towers, Transform, tower
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family, Head
from finetune_tf.weights.conversions import IDENTITY, KERNEL, LeadingAxis
from finetune_tf.weights.table import Weight, linear, prefixed

#: The key of the config of each tower, and the prefix of its tensors.
CONFIG_KEYS = {"image": "vision_config", "text": "text_config"}
_TENSORS = {"image": "vision_model", "text": "text_model"}
#: The task of each tower alone, which returns its vectors.
TOWER_TASKS = {"image": "image-feature-extraction", "text": "feature-extraction"}
FUSIONS = ("concatenation", "gate", "cross_attention")

RULES = {
    "projection_dim": values.FEATURES,
    "logit_scale_init_value": values.Number(-100, 100),
    "prompts": values.Predicate(
        'a list of texts with "{}" for the label, or null',
        lambda v: v is None or (isinstance(v, list | tuple) and all("{}" in str(p) for p in v)),
    ),
    "fusion": values.Predicate(
        f"one of {', '.join(FUSIONS)}, or null", lambda v: v is None or v in FUSIONS
    ),
    "fusion_size": values.FEATURES,
}
DEFAULTS = {
    "projection_dim": 512,
    "logit_scale_init_value": 2.6592,
    "fusion": None,
    "fusion_size": 256,
}


@dataclass(frozen=True)
class TwoTowers:
    """The functions of a family of two towers; see `Family`.

    Attributes:
        families: (name of the tower, config of the model) to the family of the tower.
        poolings: (name of the tower, config of the model) to its pooling: "pooler", "cls" or
            "mean".
        class_names: The PyTorch class of each tower alone; empty if there is none.
        projections: The module of the projection of each tower in PyTorch, without a bias; empty if
            the towers return vectors of the same size.
        joins_vectors: Whether vectors are joined for classification without their projections, as
            those of encoders that were not trained with projections.
        has_logits_bias: As for `Head`.
    """

    families: Callable[[str, Mapping[str, Any]], Family]
    poolings: Callable[[str, Mapping[str, Any]], str] = lambda name, config: "pooler"
    projections: Mapping[str, str] = field(default_factory=dict)
    class_names: Mapping[str, str] = field(default_factory=dict)
    joins_vectors: bool = False
    has_logits_bias: bool = False

    def encoder(
        self, name: str, config: dict, dtype: Any, sequence: bool = False, **inputs: Any
    ) -> tuple[dict, Any]:
        """Builds one tower.

        Args:
            name: "image" or "text".
            config: The complete config of the model.
            dtype: Keras dtype policy.
            sequence: Whether the tower returns the features of all tokens, instead of a vector.
            **inputs: `pixels=` for images; see `Family.backbone`.

        Returns:
            Its symbolic inputs by name, and its output, which ends its chain.
        """
        family, own = self.families(name, config), config[CONFIG_KEYS[name]]
        backbone = family.backbone(own, dtype, **inputs)
        if sequence:
            hidden = backbone.hidden
            if len(hidden.shape) == 4:  # the features of a convolutional network
                hidden = keras.layers.Reshape((-1, hidden.shape[-1]), name="tokens")(hidden)
            return backbone.inputs, tower(name, backbone.inputs, hidden)
        head = family.head(TOWER_TASKS[name], own)
        vector = backbone.vector(head, self.poolings(name, config), dtype)
        if self.projections and not (self.joins_vectors and config["fusion"]):
            project = partial(Transform, config["projection_dim"], "linear", use_bias=False)
            vector = project(dtype=dtype, name="projection")(vector)
        return backbone.inputs, tower(name, backbone.inputs, vector)

    def backbone(self, config: dict, dtype: Any, pixels: PixelNormalization) -> Towers:
        """Builds both towers."""
        sequence = config["fusion"] == "cross_attention"
        images, image = self.encoder("image", config, dtype, sequence, pixels=pixels)
        texts, text = self.encoder("text", config, dtype, sequence)
        return Towers({**images, **texts}, image, text)

    def single(self, name: str, config: dict, dtype: Any, **inputs: Any) -> Backbone:
        """Builds one tower alone, whose vectors are pooled already."""
        inputs, vector = self.encoder(name, config, dtype, **inputs)
        token = keras.layers.Reshape((1, vector.shape[-1]), dtype=vector.dtype)(vector)
        return Backbone(inputs, token, token, None)

    def weights(self, config: dict) -> list[Weight]:
        """The weight table of both towers, without projections."""
        table = []
        for name in ("image", "text"):
            family, own = self.families(name, config), config[CONFIG_KEYS[name]]
            head = family.head(TOWER_TASKS[name], own)
            rows = prefixed([*family.weights(own), *head.weights], _TENSORS[name])
            table += [_renamed(row, name) for row in rows]
        return table

    def heads(self, config: dict) -> dict[str, Head]:
        """The heads of the tasks on both towers, and of those on one of them."""
        projections = {
            name: [Weight(f"{module}.weight", f"{name}_projection/dense/kernel", KERNEL)]
            for name, module in self.projections.items()
        }
        both = [row for rows in projections.values() for row in rows]
        options = {"has_logits_bias": self.has_logits_bias}
        # SigLIP stores both numbers with an axis.
        number = LeadingAxis() if self.has_logits_bias else IDENTITY
        scale = [Weight("logit_scale", "image_rows/logit_scale", number)]
        if self.has_logits_bias:
            scale += [Weight("logit_bias", "image_rows/logit_bias", number)]
        pairs = Head([*both, *scale], **options)
        single = {
            task: Head(
                projections.get(name, ()),
                transform=partial(keras.layers.Identity, name="vector"),
                backbone=partial(self.single, name),
                class_name=self.class_names.get(name, ""),
                **options,
            )
            for name, task in TOWER_TASKS.items()
        }
        joined = [] if self.joins_vectors else both
        rows = [*joined, *fusion_weights(config), *linear("classifier", "classifier/dense")]
        return {
            "zero-shot-image-classification": pairs,
            "image-text-retrieval": pairs,
            "image-text-classification": Head(rows, dropout=0.1, **options),
            **single,
        }


def _renamed(row: Weight, name: str) -> Weight:
    """Returns the row of a tower's table for the variables with the prefix of the tower."""
    variables = tuple(f"{name}_{path}" for path in row.variables)
    tied = row.tied_to and f"{name}_{row.tied_to}"
    return replace(row, variables=variables or None, tied_to=tied)


def fusion_weights(config: Mapping[str, Any]) -> list[Weight]:
    """The weight table of the layer that joins both towers; see `architectures.Fusion`."""
    parts = ["image", "text", "output"]
    if config["fusion"] == "gate":
        parts.append("gate")
    rows = [row for part in parts for row in linear(f"fusion.{part}", f"fusion/{part}")]
    if config["fusion"] == "cross_attention":
        for part in ("query", "key", "value", "output"):
            rows += linear(f"fusion.attention.{part}", f"fusion/attention/{part}")
    return rows
