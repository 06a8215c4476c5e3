"""What PyTorch computes for small random models of images; the counterpart of `pytorch`.

`record` has the same arrays as there, with ``pixel_values`` (batch, height, width, channels) uint8
as the only input. PyTorch gets the numbers that the normalisation of the model makes of them.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from references.pytorch import LEARNING_RATE, WEIGHT_DECAY, randomize, save
from transformers import PreTrainedModel

BATCH, STEPS = 4, 5
#: The seed of each stored folder.
STORED = {"vit": 200, "resnet": 201, "deit": 202, "dinov2": 203, "convnext": 204, "swin": 205}
STORED |= {"mobilenet_v1": 206, "mobilenet_v2": 207}
MEAN, STDDEV = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PREPROCESSOR = {"image_mean": list(MEAN), "image_std": list(STDDEV)}
TASKS = {"image-classification": "ForImageClassification", "image-feature-extraction": "Model"}
PREFIXES = {"vit": "ViT", "deit": "DeiT", "resnet": "ResNet", "dinov2": "Dinov2"}
PREFIXES |= {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "convnext": "ConvNext",
    "swin": "Swin",
}
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


def write_preprocessor(folder: Path, size: tuple[int, int]) -> None:
    """Writes the preprocessor_config.json of a checkpoint for images of one size."""
    content = {"image_processor_type": "ViTImageProcessor", **PREPROCESSOR}
    content["size"] = {"height": size[0], "width": size[1]}
    path = Path(folder) / "preprocessor_config.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Family:
    """PyTorch's classes of one `model_type`."""

    config: type
    models: dict[str, type[PreTrainedModel]]  # by task


FAMILIES = {
    name: Family(
        getattr(transformers, f"{prefix}Config"),
        {task: getattr(transformers, prefix + suffix) for task, suffix in TASKS.items()},
    )
    for name, prefix in PREFIXES.items()
}


def make_model(family: str, task: str, config: dict[str, Any], seed: int) -> PreTrainedModel:
    """A random model without dropout; running variances are positive.

    Args:
        family: A key of `FAMILIES`.
        task: A key of `TASKS`.
        config: Keys of the family's config class.
        seed: Seed of the weights.
    """
    kinds = FAMILIES[family]
    full = kinds.config(**copy.deepcopy(config), attn_implementation="eager")
    model = randomize(kinds.models[task](full), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.2, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.add_(1.0)
    return model.eval()


def make_inputs(config: Any, task: str, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random levels, and targets of the right kind.

    Args:
        config: The model's own, complete one.
        task: A key of `TASKS`.
        seed: Seed of levels and targets.
        size: (height, width).
    """
    rng = np.random.default_rng(seed)
    inputs = {"pixel_values": rng.integers(0, 256, (BATCH, *size, 3)).astype("uint8")}
    if task == "image-classification":
        labels, problem = config.num_labels, config.problem_type
        if problem == "regression" or (problem is None and labels == 1):
            inputs["labels"] = rng.normal(size=(BATCH, 1)).astype("float32")
        elif problem == "multi_label_classification":
            inputs["labels"] = rng.integers(0, 2, (BATCH, labels)).astype("float32")
        else:
            inputs["labels"] = rng.integers(0, labels, BATCH).astype("int32")
    return inputs


def normalized(pixels: np.ndarray) -> torch.Tensor:
    """(batch, channels, height, width) as image processors of transformers compute it."""
    values = (pixels.astype("float32") / 255 - np.float32(MEAN)) / np.float32(STDDEV)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def record(
    model: PreTrainedModel, task: str, inputs: dict[str, np.ndarray], steps: int = STEPS
) -> dict[str, np.ndarray]:
    """Inputs and what PyTorch gives for them; the model's weights are trained ones afterwards.

    Args:
        model: From `make_model`; save it before, not after.
        task: A key of `TASKS`.
        inputs: From `make_inputs`.
        steps: How many steps of AdamW, with fixed statistics of batches.
    """
    pixels = normalized(inputs["pixel_values"])
    labels = inputs.get("labels")
    if labels is not None:
        labels = torch.from_numpy(labels)
        labels = labels.long() if labels.dtype == torch.int32 else labels
    logits = outputs(model, task, pixels)
    _loss(model, task, pixels, labels).backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    from transformers.core_model_loading import revert_weight_conversion

    gradients = {
        f"gradient/{name}": gradient.numpy()
        for name, gradient in revert_weight_conversion(model, gradients).items()
    }
    losses = _train(model, task, pixels, labels, steps)
    return {
        **inputs,
        "logits": logits,
        "logits_ids_only": logits,
        **gradients,
        "losses": np.asarray(losses, "float32"),
        "logits_after": outputs(model, task, pixels),
    }


def outputs(model: PreTrainedModel, task: str, pixels: torch.Tensor) -> np.ndarray:
    """The logits, or the pooled features (batch, features) of a bare model."""
    with torch.no_grad():
        output = model(pixel_values=pixels)
    return (output.logits if task == "image-classification" else _pooled(output)).numpy()


def _pooled(output: Any) -> torch.Tensor:
    return output.pooler_output.flatten(1)


def _loss(
    model: PreTrainedModel, task: str, pixels: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    if task == "image-classification":
        return model(pixel_values=pixels, labels=labels).loss
    return _pooled(model(pixel_values=pixels)).square().mean()


def _train(
    model: PreTrainedModel,
    task: str,
    pixels: torch.Tensor,
    labels: torch.Tensor | None,
    steps: int,
) -> list[float]:
    """A few steps of AdamW, in which biases and normalisations do not decay."""
    spared_modules = (torch.nn.LayerNorm, torch.nn.BatchNorm2d)
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, spared_modules)
        for name, _ in module.named_parameters()
    }
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        spare = name.endswith("bias") or name in norms
        (spared if spare else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        eps=1e-8,
    )
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = _loss(model, task, pixels, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_statistics(
    model: PreTrainedModel, inputs: dict[str, np.ndarray], steps: int, dtype: torch.dtype
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Trains a copy of a classifier in the mode `train()`, with batch statistics and no dropout.

    Args:
        model: From `make_model`; it stays as it is.
        inputs: From `make_inputs`.
        steps: How many steps of AdamW.
        dtype: Of weights, statistics and arithmetic.

    Returns:
        The gradients of the last step, and the state dict afterwards.
    """
    model = copy.deepcopy(model).train().to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    task = "image-classification"
    labels = torch.from_numpy(inputs["labels"])
    labels = labels.long() if labels.dtype == torch.int32 else labels.to(dtype)
    _train(model, task, normalized(inputs["pixel_values"]).to(dtype), labels, steps)
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return gradients, {name: value.numpy() for name, value in model.state_dict().items()}


def main() -> None:
    """Stores the fixed models of `STORED` in ``FAMILY/image-classification/``.

    The script was run with Python 3.11, transformers 5.24.0 and torch 2.13.0 on a CPU::

        cd tests && python -m references.pytorch_images
    """
    task = "image-classification"
    for family, seed in STORED.items():
        folder = Path(__file__).resolve().parent / family / task
        config, size = config_of(family, task, None)
        model = make_model(family, task, config, seed)
        save(model, config, folder)
        write_preprocessor(folder, size)
        expected = record(model, task, make_inputs(model.config, task, seed, size))
        np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main()
