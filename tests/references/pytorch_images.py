"""What PyTorch computes for small random models of images; the counterpart of `pytorch`.

`record` has the same arrays as there, with ``pixel_values`` (batch, height, width, channels) uint8
as the only input, or (batch, frames, height, width, channels) for families of videos. PyTorch gets
the numbers that the normalisation of the model makes of them.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from references.image_configs import config_of
from references.pytorch import as_in_the_file, randomize, save, train
from transformers import PreTrainedModel

BATCH, STEPS = 4, 5
#: The seed of each stored folder.
STORED = {"vit": 200, "resnet": 201, "deit": 202, "dinov2": 203, "convnext": 204, "swin": 205}
STORED |= {"mobilenet_v1": 206, "mobilenet_v2": 207, "videomae": 208}
MEAN, STDDEV = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PREPROCESSOR = {"image_mean": list(MEAN), "image_std": list(STDDEV)}
TASKS = {"image-classification": "ForImageClassification", "image-feature-extraction": "Model"}
VIDEOS = {"video-classification": "ForVideoClassification"}  # the tasks of families of videos
PREFIXES = {"vit": "ViT", "deit": "DeiT", "resnet": "ResNet", "dinov2": "Dinov2"}
PREFIXES |= {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "convnext": "ConvNext",
    "swin": "Swin",
    "videomae": "VideoMAE",
}


def write_preprocessor(folder: Path, size: tuple[int, int]) -> None:
    """Writes the preprocessor_config.json of a checkpoint for images of one size."""
    content = {"image_processor_type": "ViTImageProcessor", **PREPROCESSOR}
    content["size"] = {"height": size[0], "width": size[1]}
    path = Path(folder) / "preprocessor_config.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def tasks_of(family: str) -> dict[str, str]:
    """The tasks of a family, with the suffixes of PyTorch's classes."""
    return VIDEOS if family == "videomae" else TASKS


@dataclass(frozen=True)
class Family:
    """PyTorch's classes of one `model_type`."""

    config: type
    models: dict[str, type[PreTrainedModel]]  # by task


FAMILIES = {
    name: Family(
        getattr(transformers, f"{prefix}Config"),
        {task: getattr(transformers, prefix + suffix) for task, suffix in tasks_of(name).items()},
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
    frames = [config.num_frames] if task in VIDEOS else []
    shape = (BATCH, *frames, *size, 3)
    inputs = {"pixel_values": rng.integers(0, 256, shape).astype("uint8")}
    if task.endswith("-classification"):
        labels, problem = config.num_labels, config.problem_type
        if problem == "regression" or (problem is None and labels == 1):
            inputs["labels"] = rng.normal(size=(BATCH, 1)).astype("float32")
        elif problem == "multi_label_classification":
            inputs["labels"] = rng.integers(0, 2, (BATCH, labels)).astype("float32")
        else:
            inputs["labels"] = rng.integers(0, labels, BATCH).astype("int32")
    return inputs


def normalized(pixels: np.ndarray, dtype: str = "float32") -> torch.Tensor:
    """(batch, channels, height, width) as image processors of transformers compute it.

    Clips are (batch, frames, channels, height, width).
    """
    mean, stddev = np.asarray(MEAN, dtype), np.asarray(STDDEV, dtype)
    values = (pixels.astype(dtype) / 255 - mean) / stddev
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, -3)))


def record(
    model: PreTrainedModel, task: str, inputs: dict[str, np.ndarray], steps: int = STEPS
) -> dict[str, np.ndarray]:
    """Inputs and what PyTorch gives for them; the model's weights are trained ones afterwards.

    Args:
        model: From `make_model`; save it before, not after.
        task: A key of `TASKS`.
        inputs: From `make_inputs`.
        steps: How many steps of AdamW, with fixed statistics of batches; may be 0.
    """
    pixels, labels = _tensors(model, inputs)
    logits = outputs(model, task, pixels)
    gradients = gradients_of(model, task, inputs)
    losses = train(model, lambda: _loss(model, task, pixels, labels), steps)
    return {
        **inputs,
        "logits": logits,
        "logits_ids_only": logits,
        **gradients,
        "losses": np.asarray(losses, "float32"),
        "logits_after": outputs(model, task, pixels),
    }


def gradients_of(
    model: PreTrainedModel, task: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The gradient of every parameter, in the precision of the model.

    Args:
        model: From `make_model`.
        task: A key of `TASKS`.
        inputs: From `make_inputs`.

    Returns:
        Arrays under "gradient/NAME".
    """
    _loss(model, task, *_tensors(model, inputs)).backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    gradients = as_in_the_file(model, gradients)
    return {f"gradient/{name}": gradient.numpy() for name, gradient in gradients.items()}


def _tensors(
    model: PreTrainedModel, inputs: dict[str, np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Normalised pixels and labels in the precision of the model."""
    dtype = "float64" if model.dtype == torch.float64 else "float32"
    pixels = normalized(inputs["pixel_values"], dtype).to(model.dtype)
    if "labels" not in inputs:
        return pixels, None
    labels = torch.from_numpy(inputs["labels"])
    return pixels, labels.long() if labels.dtype == torch.int32 else labels.to(model.dtype)


def outputs(model: PreTrainedModel, task: str, pixels: torch.Tensor) -> np.ndarray:
    """The logits, or the pooled features (batch, features) of a bare model."""
    with torch.no_grad():
        output = model(pixel_values=pixels)
    return (output.logits if "logits" in output else _pooled(output)).numpy()


def _pooled(output: Any) -> torch.Tensor:
    return output.pooler_output.flatten(1)


def _loss(
    model: PreTrainedModel, task: str, pixels: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    if task.endswith("-classification"):
        return model(pixel_values=pixels, labels=labels).loss
    return _pooled(model(pixel_values=pixels)).square().mean()


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
    pixels, labels = _tensors(model, inputs)
    train(model, lambda: _loss(model, task, pixels, labels), steps)
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return gradients, {name: value.numpy() for name, value in model.state_dict().items()}


def main() -> None:
    """Stores the fixed models of `STORED` in the folder ``FAMILY/TASK/`` of its first task.

    Arguments restrict it to some families.

    The script was run with Python 3.11, transformers 5.24.0 and torch 2.13.0 on a CPU::

        cd tests && python -m references.pytorch_images
    """
    for family, seed in STORED.items():
        if sys.argv[1:] and family not in sys.argv[1:]:
            continue
        task = next(iter(tasks_of(family)))
        folder = Path(__file__).resolve().parent / family / task
        config, size = config_of(family, task, None)
        model = make_model(family, task, config, seed)
        save(model, config, folder)
        write_preprocessor(folder, size)
        expected = record(model, task, make_inputs(model.config, task, seed, size))
        np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main()
