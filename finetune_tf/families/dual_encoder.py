"""Any encoder of images and any encoder of texts in one model, for fusion and for retrieval.

The config is that of `transformers.VisionTextDualEncoderModel` (Zhai et al. 2022,
arXiv:2111.07991), which opens models whose encoders have a pooler there, such as ViT and BERT.
"""

from collections.abc import Mapping
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families.family import Family
from finetune_tf.families.towers import CONFIG_KEYS, DEFAULTS, RULES, TwoTowers

_DEFAULTS = {"image": "vit", "text": "bert"}
_KINDS = {"image": "images", "text": "texts"}


class DualEncoder(Family):
    """The record of a family whose encoders have families of their own."""

    def is_in_transformers(self, config: Mapping[str, Any]) -> bool:
        """Returns whether transformers finds a size and a pooler in both encoders.

        It projects vectors of the hidden size, whatever the size of the pooler's output is.
        """
        sizes = [config[key].get("hidden_size") for key in self.towers]
        pooled = config["vision_config"].get("pooler_output_size")
        is_hidden = pooled is None or pooled == config["vision_config"].get("hidden_size")
        return None not in sizes and is_hidden and config["text_pooling"] == "pooler"


def dual_encoder(families: Mapping[str, Family]) -> Family:
    """Makes the family of models with an encoder of images and one of texts of any families.

    Args:
        families: All families by `model_type`, in which those of the encoders are looked up.
    """

    def family_of(name: str, config: Mapping[str, Any]) -> Family:
        default = _DEFAULTS[name] if not config else None
        family = families.get(config.get("model_type", default))
        reads_images = family is not None and family.image_processor is not None
        if family is None or family.towers or reads_images != (name == "image"):
            raise CheckpointError(
                f"The config key {CONFIG_KEYS[name]!r} has the model_type "
                f"{shown(config.get('model_type'))}, which is no encoder of {_KINDS[name]}."
            )
        return family

    def of_tower(name: str, config: Mapping[str, Any]) -> Family:
        return family_of(name, config[CONFIG_KEYS[name]])

    def pooling_of(name: str, config: Mapping[str, Any]) -> str:
        return config["text_pooling"] if name == "text" else "pooler"

    def max_length(config: Mapping[str, Any]) -> int | None:
        return of_tower("text", config).max_length(config["text_config"])

    towers = TwoTowers(
        of_tower,
        pooling_of,
        joins_vectors=True,
        projections={"image": "visual_projection", "text": "text_projection"},
    )
    return DualEncoder(
        model_type="vision-text-dual-encoder",
        class_prefix="VisionTextDualEncoder",
        tensor_prefix="",
        defaults={**DEFAULTS, "text_pooling": "pooler"},
        rules={**RULES, "text_pooling": values.OneOf(("pooler", "cls", "mean"))},
        supported={},
        dropout_keys=(),
        backbone=towers.backbone,
        weights=towers.weights,
        heads=towers.heads,
        max_length=max_length,
        image_processor="ViTImageProcessor",
        towers={
            key: lambda config, name=name: family_of(name, config)
            for name, key in CONFIG_KEYS.items()
        },
    )
