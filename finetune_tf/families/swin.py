"""Swin (Liu et al. 2021, arXiv:2103.14030), a vision transformer of shifted windows.

Equal to `transformers.SwinModel` and `SwinForImageClassification`.
"""

from typing import Any

from finetune_tf.architectures import (
    Backbone,
    Group,
    LayerNorm,
    PatchEmbeddings,
    PatchMerging,
    PixelNormalization,
    WindowAttention,
    bert_block,
    convolutional_encoder,
)
from finetune_tf.errors import CheckpointError
from finetune_tf.families import config_values as values
from finetune_tf.families import image_values
from finetune_tf.families.family import Family, Head
from finetune_tf.families.image_values import pair
from finetune_tf.kernels import ACTIVATIONS
from finetune_tf.weights.table import Weight, block, linear, norm

_BLOCK = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "layernorm_before",
    "feed_forward/intermediate": "intermediate.dense",
    "feed_forward/output": "output.dense",
    "feed_forward_norm": "layernorm_after",
}


def _check(config: dict) -> None:
    depths, heads = config["depths"], config["num_heads"]
    if len(depths) != len(heads):
        raise CheckpointError(
            f"The config key 'num_heads' has {len(heads)} entries, but 'depths' {len(depths)}; "
            "each group of blocks needs one of both."
        )
    for i, count in enumerate(heads):
        if config["embed_dim"] * 2**i % count:
            raise CheckpointError(
                f"The config key 'num_heads' has {count} in group {i}, which does not divide its "
                f"{config['embed_dim'] * 2**i} features ('embed_dim' is {config['embed_dim']})."
            )


def _backbone(config: dict, dtype: Any, pixels: PixelNormalization) -> Backbone:
    patch, window = pair(config["patch_size"]), config["window_size"]
    size = pixels.input_shape_of_images[:2]
    grid = tuple(-(-of_image // of_patch) for of_image, of_patch in zip(size, patch, strict=True))
    embeddings = PatchEmbeddings(
        config["embed_dim"],
        pair(config["image_size"]),
        patch,
        (),
        config["hidden_dropout_prob"],
        config["initializer_range"],
        layer_norm_eps=1e-5,
        pads=True,
        has_positions=config["use_absolute_embeddings"],
        dtype=dtype,
        name="embeddings",
    )
    stages, total = [embeddings], max(sum(config["depths"]) - 1, 1)
    for i, depth in enumerate(config["depths"]):
        features, first = config["embed_dim"] * 2**i, sum(config["depths"][:i])
        if min(grid) < window:
            raise CheckpointError(
                f"Images of {size[0]} x {size[1]} pixels leave {grid[0]} x {grid[1]} patches in "
                f"group {i}, fewer than the config key 'window_size', {window}. Load the "
                "checkpoint with a larger image_size=…."
            )
        layers: list[Any] = [
            _block(config, dtype, i, features, grid, j, (first + j) / total) for j in range(depth)
        ]
        if i < len(config["depths"]) - 1:
            layers.append(
                PatchMerging(
                    grid, features, config["initializer_range"], dtype=dtype, name="merging"
                )
            )
        stages.append(Group(layers, dtype=dtype, name=f"block_{i}"))
        grid = tuple(-(-n // 2) for n in grid)
    stages.append(LayerNorm(config["layer_norm_eps"], dtype=dtype, name="final_norm"))
    return convolutional_encoder(pixels, stages)


def _block(
    config: dict, dtype: Any, group: int, features: int, grid: tuple, place: int, depth: float
) -> Any:
    """The block at a place of a group; `depth` is its share of the depth of the model."""
    window = config["window_size"]
    is_shifted = place % 2 == 1 and min(grid) > window
    attention = WindowAttention(
        features,
        config["num_heads"][group],
        grid,
        window,
        shift=window // 2 if is_shifted else 0,
        drop_path=config["drop_path_rate"] * depth,
        dropout=config["attention_probs_dropout_prob"],
        initializer_range=config["initializer_range"],
        use_bias=config["qkv_bias"],
        output_bias=True,
        dtype=dtype,
        name="attention",
    )
    return bert_block(
        hidden_size=features,
        num_heads=config["num_heads"][group],
        intermediate_size=int(config["mlp_ratio"] * features),
        activation=config["hidden_act"],
        dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"],
        layer_norm_eps=config["layer_norm_eps"],
        initializer_range=config["initializer_range"],
        attention=attention,
        norm_first=True,
        dtype=dtype,
        name=f"layer_{place}",
    )


def _weights(config: dict) -> list[Weight]:
    table = [
        Weight("embeddings.mask_token", None),  # of masked image modeling
        Weight("embeddings.position_embeddings", "embeddings/positions"),
        *linear("embeddings.patch_embeddings.projection", "embeddings"),
        *norm("embeddings.norm", "embeddings/norm"),
        *norm("layernorm", "final_norm"),
    ]
    for i, depth in enumerate(config["depths"]):
        group, stage = f"block_{i}", f"encoder.layers.{i}"
        for j in range(depth):
            module, layer = f"{stage}.blocks.{j}", f"{group}/layer_{j}"
            table += block(module, layer, _BLOCK)
            attention = f"{module}.attention.self"
            table += [
                Weight(
                    f"{attention}.relative_position_bias_table", f"{layer}/attention/position_bias"
                ),
                Weight(f"{attention}.relative_position_index", None),  # a constant
            ]
        table += norm(f"{stage}.downsample.norm", f"{group}/merging/norm")
        table += linear(f"{stage}.downsample.reduction", f"{group}/merging/reduction")
    return table


def _heads(config: dict) -> dict[str, Head]:
    return {
        "image-classification": Head(linear("classifier", "classifier/dense"), pooling="mean"),
        "image-feature-extraction": Head(pooling="mean"),
    }


SWIN = Family(
    model_type="swin",
    class_prefix="Swin",
    tensor_prefix="swin",
    defaults={
        "image_size": 224,
        "patch_size": 4,
        "num_channels": 3,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.1,
        "hidden_act": "gelu",
        "use_absolute_embeddings": False,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-5,
    },
    rules={
        **image_values.RULES,
        "patch_size": image_values.SIZE,
        "embed_dim": values.FEATURES,
        "depths": image_values.DEPTHS,
        "num_heads": image_values.CHANNELS,
        "window_size": values.integer(1024),
        "mlp_ratio": values.Number(0, 64, above_low=True),
        "qkv_bias": values.BOOLEAN,
        "hidden_dropout_prob": values.RATE,
        "attention_probs_dropout_prob": values.RATE,
        "drop_path_rate": values.RATE,
        "hidden_act": values.STRING,
        "use_absolute_embeddings": values.BOOLEAN,
        "layer_norm_eps": values.EPSILON,
    },
    supported={"hidden_act": tuple(sorted(ACTIVATIONS))},
    dropout_keys=("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
    aliases={"num_attention_heads": "num_heads"},
    backbone=_backbone,
    weights=_weights,
    heads=_heads,
    max_length=lambda config: None,
    check=_check,
    image_processor="ViTImageProcessor",
)
