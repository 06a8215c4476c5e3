"""VideoMAE (Tong et al. 2022, arXiv:2203.12602): a vision transformer on tubelets of clips.

Equal to `transformers.VideoMAEModel` and `VideoMAEForVideoClassification`.
"""

from functools import partial
from typing import Any

from finetune_tf.architectures import (
    Backbone,
    LayerNorm,
    PixelNormalization,
    TubeletEmbeddings,
    bert_block,
    image_encoder,
)
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.bert import bert_block_arguments
from finetune_tf.families.family import Family, Head, unsupported
from finetune_tf.families.image_values import pair
from finetune_tf.families.vit import BLOCK, VIT, check_patches
from finetune_tf.weights.conversions import KERNEL
from finetune_tf.weights.table import Weight, block, linear, norm

_LEFT_OUT = ("qkv_bias", "pooler_output_size", "pooler_act")  # keys of ViT


def _check(config: dict) -> None:
    check_patches(config)
    frames, tubelet = config["num_frames"], config["tubelet_size"]
    if frames % tubelet:
        raise unsupported(config, "num_frames", f"multiples of the tubelet_size, {tubelet}")


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    arguments = bert_block_arguments(config, dtype)
    # Files that were written by transformers 4 call the key "qkv_bias".
    has_bias = config.get("qkv_bias", config["qv_bias"])
    attention = {"use_bias": has_bias, "key_bias": False, "output_bias": True}
    blocks = [
        bert_block(**arguments, attention_options=attention, norm_first=True, name=f"block_{i}")
        for i in range(config["num_hidden_layers"])
    ]
    embeddings = TubeletEmbeddings(
        config["hidden_size"],
        (config["tubelet_size"], *pair(config["patch_size"])),
        config["initializer_range"],
        dtype=dtype,
        name="embeddings",
    )
    final_norm = None
    if not config["use_mean_pooling"]:
        final_norm = LayerNorm(config["layer_norm_eps"], dtype=dtype, name="final_norm")
    size = pixels.input_shape_of_images[:2]
    if size != pair(config["image_size"]):
        # Positions are numbered over all tubelets, so other ones would belong to these places.
        raise CheckpointError(
            f"The frames are prepared to {size[0]} x {size[1]} pixels, but the config key "
            f"'image_size' is {config['image_size']}, for which the positions of VideoMAE were "
            f"trained. To train it for another size, pass config={{'image_size': {list(size)}}} as "
            "well."
        )
    pixels = pixels.for_clips(config["num_frames"])
    return image_encoder(pixels, embeddings, blocks, final_norm)


def _weights(config: dict) -> list[Weight]:
    projection = "embeddings.patch_embeddings.projection"
    table = [
        Weight(f"{projection}.weight", "embeddings/kernel", KERNEL),
        Weight(f"{projection}.bias", "embeddings/bias"),
        *norm("layernorm", "final_norm"),
    ]
    for i in range(config["num_hidden_layers"]):
        module, layer = f"encoder.layer.{i}", f"block_{i}"
        for part, name in (("query", "q_bias"), ("value", "v_bias")):
            # Files have this name; it comes first, so that every release finds what is written.
            # A release that does not know a name leaves the bias at zero without a word.
            bias = f"{layer}/attention/{part}/bias"
            table.append(Weight(f"{module}.attention.attention.{name}", bias))
        table += block(module, layer, BLOCK)
    return table


def _heads(config: dict) -> dict[str, Head]:
    classifier = linear("classifier", "classifier/dense")
    if not config["use_mean_pooling"]:
        return {"video-classification": Head(classifier)}
    # PyTorch's layer has its default epsilon, whatever the config says.
    pooler = partial(LayerNorm, 1e-5, name="pooler")
    rows = [*norm("fc_norm", "pooler"), *classifier]
    return {"video-classification": Head(rows, transform=pooler, pooling="mean")}


VIDEOMAE = Family(
    model_type="videomae",
    class_prefix="VideoMAE",
    tensor_prefix="videomae",
    defaults={key: value for key, value in VIT.defaults.items() if key not in _LEFT_OUT}
    | {"num_frames": 16, "tubelet_size": 2, "qv_bias": True, "use_mean_pooling": True},
    rules={key: rule for key, rule in VIT.rules.items() if key not in _LEFT_OUT}
    | {
        "num_frames": image_values.FRAMES,
        "tubelet_size": image_values.FRAMES,
        "qv_bias": values.BOOLEAN,
        "qkv_bias": values.BOOLEAN,
        "use_mean_pooling": values.BOOLEAN,
    },
    supported={"hidden_act": VIT.supported["hidden_act"]},
    dropout_keys=VIT.dropout_keys,
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: None,
    check=_check,
    image_processor="VideoMAEImageProcessor",
    has_old_classes=False,
)
