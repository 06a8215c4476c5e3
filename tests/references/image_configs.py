"""Configurations of every family of images, as transformers spells them: fixed and random ones."""

from __future__ import annotations

import random
from typing import Any

_VIT = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 13,
    "layer_norm_eps": 1e-4,
    "image_size": 21,
    "patch_size": 5,
    "num_labels": 3,
}
FIXED: dict[str, dict[str, Any]] = {
    "vit": _VIT | {"hidden_act": "gelu_new", "pooler_output_size": 7},
    "deit": _VIT | {"hidden_act": "relu", "qkv_bias": False},
    "dinov2": _VIT | {"hidden_act": "gelu", "image_size": 30, "layerscale_value": 0.5},
    "resnet": {
        "embedding_size": 5,
        "hidden_sizes": [8, 12],
        "depths": [2, 1],
        "layer_type": "bottleneck",
        "hidden_act": "tanh",
        "image_size": 37,
        "num_labels": 3,
    },
    "convnext": {
        "hidden_sizes": [6, 10],
        "depths": [1, 2],
        "num_stages": 2,
        "patch_size": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-4,
        "layer_scale_init_value": 0.5,
        "image_size": 26,
        "num_labels": 3,
    },
    "swin": {
        "embed_dim": 6,
        "depths": [2, 1],
        "num_heads": [3, 2],
        "window_size": 3,
        "patch_size": 4,
        "image_size": 30,
        "mlp_ratio": 1.5,
        "hidden_act": "relu",
        "drop_path_rate": 0.0,
        "use_absolute_embeddings": False,
        "num_labels": 3,
    },
    "videomae": _VIT
    | {
        "hidden_size": 18,
        "image_size": 20,
        "patch_size": [9, 6],
        "num_frames": 6,
        "tubelet_size": 3,
        "hidden_act": "gelu",
    },
    "mobilenet_v1": {"depth_multiplier": 0.1, "min_depth": 3, "image_size": 37, "num_labels": 3},
    "mobilenet_v2": {
        "depth_multiplier": 0.1,
        "depth_divisible_by": 2,
        "min_depth": 2,
        "expand_ratio": 2.0,
        "output_stride": 8,
        "finegrained_output": False,
        "tf_padding": False,
        "image_size": 37,
        "num_labels": 3,
    },
}


_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh", "quick_gelu", "relu6", "leaky_relu")
_EPSILONS = (1e-12, 1e-5, 1e-2)
_BOTH = (True, False)
_OF_VIT = {
    "hidden_size": (8, 16),
    "num_attention_heads": (1, 2, 4),
    "num_hidden_layers": (1, 3),
    "image_size": (16, 23, [16, 23]),
    "patch_size": (4, 7),
    "qkv_bias": _BOTH,
    "layer_norm_eps": _EPSILONS,
}
_OF_VIT_ONLY = {
    "intermediate_size": (5, 16),
    "pooler_output_size": (None, 3),
    "pooler_act": ("tanh", "relu", "gelu"),
}
_OF_MOBILENET = {
    "depth_multiplier": (0.1, 0.2, 0.35),
    "min_depth": (2, 3, 8),
    "tf_padding": _BOTH,
    "layer_norm_eps": (1e-3, 1e-2),
}
#: The possible values of the keys of each family.
DRAWS: dict[str, dict[str, tuple]] = {
    "vit": _OF_VIT | _OF_VIT_ONLY,
    "deit": _OF_VIT | _OF_VIT_ONLY,
    "dinov2": {
        **_OF_VIT,
        "image_size": (16, 23),
        "mlp_ratio": (2, 4),
        "use_swiglu_ffn": _BOTH,
        "use_mask_token": _BOTH,
        "layerscale_value": (1.0, 0.1),
        "drop_path_rate": (0.0, 0.3),
    },
    "resnet": {
        "embedding_size": (3, 8),
        "hidden_sizes": ([8], [8, 4, 12], [4, 4], [16, 8]),
        "layer_type": ("basic", "bottleneck"),
        "downsample_in_first_stage": _BOTH,
        "downsample_in_bottleneck": _BOTH,
    },
    "convnext": {
        "hidden_sizes": ([6, 10], [5], [4, 8, 6]),
        "patch_size": (2, 4),
        "layer_scale_init_value": (0.0, 1e-6, 1.0),
        "layer_norm_eps": (1e-12, 1e-2),
        "drop_path_rate": (0.0, 0.3),
    },
    "swin": {
        "embed_dim": (6, 12),
        "window_size": (2, 3, 4),
        "patch_size": (2, 3, [2, 3]),
        "depths": ([2, 2], [1, 2], [3]),
        "mlp_ratio": (1.5, 2.0),
        "qkv_bias": _BOTH,
        "use_absolute_embeddings": _BOTH,
        "layer_norm_eps": (1e-12, 1e-2),
        "drop_path_rate": (0.0, 0.3),
        "image_size": (24, 36, [24, 30]),
    },
    "videomae": {
        **{key: value for key, value in _OF_VIT.items() if key != "qkv_bias"},
        "intermediate_size": (5, 16),
        "patch_size": (4, 7, [8, 5]),
        "num_frames": (2, 4),
        "tubelet_size": (1, 2),
        "qv_bias": _BOTH,
        "use_mean_pooling": _BOTH,
    },
    "mobilenet_v1": _OF_MOBILENET,
    "mobilenet_v2": {
        **_OF_MOBILENET,
        "depth_divisible_by": (2, 8),
        "expand_ratio": (1.0, 2.0, 3.5),
        "output_stride": (4, 8, 16, 32),
        "first_layer_is_expansion": _BOTH,
        "finegrained_output": _BOTH,
    },
}
#: The possible heights and widths where images may have any size.
_SIZES = {
    "dinov2": ((16, 30), (16, 25)),
    "resnet": ((33, 40), (33, 64)),
    "convnext": ((17, 32), (24, 29)),
    "mobilenet_v1": ((33, 48), (33, 40)),
    "mobilenet_v2": ((33, 48), (33, 40)),
}


def config_of(family: str, task: str, seed: int | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """The fixed configuration of a family, or one drawn by a seed, and the size of its images.

    Args:
        family: A key of `FIXED`.
        task: A key of `TASKS`.
        seed: Another one gives another configuration; None gives the fixed one.
    """
    config = dict(FIXED[family])
    size = config["image_size"]
    if family == "resnet":
        del config["image_size"]  # it has no such key
    if seed is None:
        return config, (size, size + 12 if family == "dinov2" else size)
    choose = random.Random(f"{family} {task} {seed}").choice
    config |= {"hidden_act": choose(_ACTIVATIONS)}
    if task.endswith("-classification"):
        config |= {"num_labels": choose([1, 2, 5]), "problem_type": None}
        if config["num_labels"] > 1:
            problems = [None, "single_label_classification", "multi_label_classification"]
            config["problem_type"] = choose(problems)
    config |= {key: choose(values) for key, values in DRAWS[family].items()}
    if family == "dinov2":
        del config["intermediate_size"]  # `mlp_ratio` determines it
    elif family == "convnext":
        config["num_stages"] = len(config["hidden_sizes"])
    elif family == "swin":
        config["num_heads"] = [choose([1, 2, 3]) * 2**i for i in range(len(config["depths"]))]
    if "hidden_sizes" in config:
        config["depths"] = [choose([1, 2]) for _ in config["hidden_sizes"]]
    if family in _SIZES:
        height, width = map(choose, _SIZES[family])
        return config, (height, width)
    size = config["image_size"]
    return config, tuple(size) if isinstance(size, list) else (size, size)
