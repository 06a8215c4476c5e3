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


_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh", "quick_gelu", "relu6")


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
    if task == "image-classification":
        problem = choose([None, "single_label_classification", "multi_label_classification"])
        config |= {"num_labels": choose([2, 5]), "problem_type": problem}
    if family in ("vit", "deit", "dinov2"):
        heads = choose([1, 2, 4])
        config |= {
            "hidden_size": 4 * heads,
            "num_attention_heads": heads,
            "num_hidden_layers": choose([1, 3]),
            "image_size": choose([16, 23]),
            "patch_size": choose([4, 7]),
            "qkv_bias": choose([True, False]),
            "layer_norm_eps": choose([1e-12, 1e-5, 1e-2]),
        }
        size = config["image_size"]
        if family == "dinov2":
            del config["intermediate_size"]
            config |= {
                "mlp_ratio": choose([2, 4]),
                "use_swiglu_ffn": choose([True, False]),
                "use_mask_token": choose([True, False]),
                "layerscale_value": choose([1.0, 0.1]),
            }
            return config, (choose([16, 30]), choose([16, 25]))
    elif family == "resnet":
        config |= {
            "embedding_size": choose([3, 8]),
            "hidden_sizes": choose([[8], [8, 4, 12], [4, 4]]),
            "layer_type": choose(["basic", "bottleneck"]),
            "downsample_in_first_stage": choose([True, False]),
            "downsample_in_bottleneck": choose([True, False]),
        }
        config["depths"] = [choose([1, 2]) for _ in config["hidden_sizes"]]
        return config, (choose([33, 40]), choose([33, 64]))
    elif family == "convnext":
        config |= {
            "patch_size": choose([2, 4]),
            "layer_scale_init_value": choose([0.0, 1e-6, 1.0]),
            "layer_norm_eps": choose([1e-12, 1e-2]),
        }
        return config, (choose([17, 32]), choose([24, 29]))
    elif family == "swin":
        config |= {
            "window_size": choose([2, 3, 4]),
            "patch_size": choose([2, 3]),
            "depths": choose([[2, 2], [1, 2], [3]]),
            "qkv_bias": choose([True, False]),
            "use_absolute_embeddings": choose([True, False]),
            "layer_norm_eps": choose([1e-12, 1e-2]),
        }
        config["num_heads"] = [3, 2][: len(config["depths"])]
        size = config["image_size"] = choose([24, 36])
    else:
        config |= {
            "depth_multiplier": choose([0.1, 0.2]),
            "tf_padding": choose([True, False]),
            "layer_norm_eps": choose([1e-3, 1e-2]),
        }
        if family == "mobilenet_v2":
            config |= {
                "output_stride": choose([8, 16, 32]),
                "first_layer_is_expansion": choose([True, False]),
                "finegrained_output": choose([True, False]),
            }
        return config, (choose([33, 48]), choose([33, 40]))
    return config, (size, size)
