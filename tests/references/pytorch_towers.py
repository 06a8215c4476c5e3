"""What PyTorch computes for small random models of two towers; the counterpart of `pytorch`.

`record` has the same arrays as there, with ``input_ids``, ``attention_mask`` and ``pixel_values``
(batch, height, width, channels) uint8. "logits" are the rows of finetune_tf, (batch, 2, features),
made of the vectors, the scale and the bias that PyTorch returns; "logits_per_image" are PyTorch's
own.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from references import image_configs, random_configs
from references.fixed_configs import FIXED as FIXED_TEXTS
from references.pytorch import as_in_the_file, randomize, save, train
from references.pytorch_images import normalized, write_preprocessor
from transformers import PreTrainedModel

BATCH, STEPS = 4, 5
TASK = "image-text-retrieval"
#: The seed of each stored folder.
STORED = {"clip": 300, "siglip": 301, "vision-text-dual-encoder": 302}
CLASSES = {
    "clip": ("CLIPConfig", "CLIPModel"),
    "siglip": ("SiglipConfig", "SiglipModel"),
    "vision-text-dual-encoder": (
        "VisionTextDualEncoderConfig",
        "VisionTextDualEncoderModel",
    ),
}
_ENCODER = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
_ENCODER |= {"intermediate_size": 13, "layer_norm_eps": 1e-4}
_IMAGE = {**_ENCODER, "hidden_size": 8, "num_attention_heads": 2, "image_size": 21, "patch_size": 6}
_TEXT = {**_ENCODER, "vocab_size": 23, "max_position_embeddings": 17, "eos_token_id": 7}
_TEXT |= {"bos_token_id": 1, "pad_token_id": 0}
_POOLER = {"pooler_output_size": None}  # PyTorch projects vectors of the hidden size
FIXED: dict[str, dict[str, Any]] = {
    "clip": {"text_config": _TEXT, "vision_config": _IMAGE, "projection_dim": 5},
    "siglip": {"text_config": {**_TEXT, "projection_size": 8}, "vision_config": _IMAGE},
    "vision-text-dual-encoder": {
        "text_config": {"model_type": "bert", **FIXED_TEXTS["bert"]},
        "vision_config": {"model_type": "vit", **image_configs.FIXED["vit"], **_POOLER},
        "projection_dim": 5,
    },
}


def config_of(family: str, seed: int | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """The fixed configuration of a family, or one drawn by a seed, and the size of its images.

    Args:
        family: A key of `CLASSES`.
        seed: Another one gives another configuration; None gives the fixed one.
    """
    config = copy.deepcopy(FIXED[family])
    if seed is not None:
        choose = random.Random(f"{family} {seed}").choice
        config = _dual_config(choose, seed) if "dual" in family else _drawn(family, choose)
    size = config["vision_config"].get("image_size")
    return config, tuple(size) if isinstance(size, list) else (size, size)


def _drawn(family: str, choose: Any) -> dict[str, Any]:
    """A configuration of CLIP or SigLIP."""

    def encoder() -> dict[str, Any]:
        heads = choose([1, 2, 3])
        return {
            "hidden_size": heads * choose([4, 5, 8]),
            "num_attention_heads": heads,
            "num_hidden_layers": choose([1, 2, 3]),
            "intermediate_size": choose([5, 16, 33]),
            "hidden_act": choose(["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu", "silu"]),
            "layer_norm_eps": choose([1e-12, 1e-5, 1e-2]),
        }

    ids = {"bos_token_id": 1, "pad_token_id": choose([0, 1]), "eos_token_id": choose([2, 6])}
    text = encoder() | ids
    text |= {"vocab_size": choose([9, 40]), "max_position_embeddings": choose([12, 20])}
    image = encoder() | {"image_size": choose([16, 23]), "patch_size": choose([4, 7])}
    if family == "siglip":
        text["projection_size"] = image["hidden_size"]
        return {"text_config": text, "vision_config": image}
    scale = {"logit_scale_init_value": choose([0.5, 2.6592])}
    return {"text_config": text, "vision_config": image, "projection_dim": choose([3, 8]), **scale}


def _dual_config(choose: Any, seed: int) -> dict[str, Any]:
    """A configuration of two encoders of other families."""
    image, text = choose(["vit", "deit", "dinov2"]), choose(["bert", "albert"])
    vision, size = image_configs.config_of(image, "image-feature-extraction", seed)
    vision |= {} if image == "dinov2" else _POOLER
    if image == "dinov2":
        vision["image_size"] = min(size)  # one number; the images have this size
    texts = random_configs.random_config(text, "feature-extraction", seed)
    return {
        "text_config": {"model_type": text, **texts},
        "vision_config": {"model_type": image, **vision},
        "projection_dim": choose([3, 8]),
        "logit_scale_init_value": choose([0.5, 2.6592]),
    }


def make_model(family: str, config: dict[str, Any], seed: int) -> PreTrainedModel:
    """A random model without dropout.

    Args:
        family: A key of `CLASSES`.
        config: From `config_of`.
        seed: Seed of the weights.
    """
    kind, model = (getattr(transformers, name) for name in CLASSES[family])
    config = copy.deepcopy(config)
    if "dual" in family:
        towers = [
            transformers.AutoConfig.for_model(**config.pop(key))
            for key in ("vision_config", "text_config")
        ]
        full = kind.from_vision_text_configs(*towers, **config)
    else:
        full = kind(**config)
    made = model._from_config(full, attn_implementation="eager")
    made = randomize(made, seed)
    with torch.no_grad():  # a scale as in training, at which rounding errors stay small
        made.logit_scale.fill_(config.get("logit_scale_init_value", 1.3))
    return made.eval()


def make_inputs(config: Any, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random levels and token ids; most texts have the token that ends them, and padding after it.

    Args:
        config: The model's own, complete one.
        seed: Seed of levels and ids.
        size: (height, width).
    """
    rng = np.random.default_rng(seed)
    text = config.text_config
    length = min(8, text.max_position_embeddings - 4)
    ids = rng.integers(1, text.vocab_size, (BATCH, length)).astype("int32")
    lengths = np.array([length, length - 1, length - 3, length - 2])
    mask = (np.arange(length) < lengths[:, None]).astype("int32")
    end = text.eos_token_id
    if isinstance(end, int) and end < text.vocab_size:
        ids[np.arange(BATCH - 1), lengths[:-1] - 1] = end  # the last text has none
    ids = np.where(mask == 1, ids, text.pad_token_id or 0).astype("int32")
    pixels = rng.integers(0, 256, (BATCH, *size, 3)).astype("uint8")
    labels = np.arange(BATCH, dtype="int32")  # each image matches its own text alone
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "labels": labels}


def tensors_of(model: PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The arguments of a PyTorch model."""
    dtype = "float64" if model.dtype == torch.float64 else "float32"
    pixels = normalized(inputs["pixel_values"], dtype).to(model.dtype)
    names = [name for name in ("input_ids", "attention_mask") if name in inputs]
    return {"pixel_values": pixels} | {n: torch.from_numpy(inputs[n]).long() for n in names}


def outputs(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows (batch, 2, features) of finetune_tf, and PyTorch's logits per image."""
    with torch.no_grad():
        output = model(**tensors)
        images = output.image_embeds * model.logit_scale.exp()
        texts = output.text_embeds
        if hasattr(model, "logit_bias"):
            ones = torch.ones_like(texts[:, :1])
            images = torch.cat([images, ones * model.logit_bias], 1)
            texts = torch.cat([texts, ones], 1)
    return torch.stack([images, texts], 1).numpy(), output.logits_per_image.numpy()


def gradients_of(model: PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradient of every parameter, in the precision of the model, under "gradient/NAME"."""
    model(**tensors_of(model, inputs), return_loss=True).loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    gradients = as_in_the_file(model, gradients)
    return {f"gradient/{name}": gradient.numpy() for name, gradient in gradients.items()}


def record(
    model: PreTrainedModel, inputs: dict[str, np.ndarray], steps: int = STEPS
) -> dict[str, np.ndarray]:
    """Inputs and what PyTorch gives for them; the model's weights are trained ones afterwards.

    Args:
        model: From `make_model`; save it before, not after.
        inputs: From `make_inputs`.
        steps: How many steps of AdamW; may be 0.
    """
    tensors = tensors_of(model, inputs)
    rows, logits = outputs(model, tensors)
    without_mask = {name: tensor for name, tensor in tensors.items() if name != "attention_mask"}
    rows_without_mask, _ = outputs(model, without_mask)
    gradients = gradients_of(model, inputs)
    losses = train(model, lambda: model(**tensors, return_loss=True).loss, steps)
    return {
        **inputs,
        "logits": rows,
        "logits_per_image": logits,
        "logits_ids_only": rows_without_mask,
        **gradients,
        "losses": np.asarray(losses, "float32"),
    }


def main() -> None:
    """Stores the fixed models of `STORED` in ``FAMILY/image-text-retrieval/``.

    The script was run with Python 3.11, transformers 5.24.0 and torch 2.13.0 on a CPU::

        cd tests && python -m references.pytorch_towers
    """
    for family, seed in STORED.items():
        folder = Path(__file__).resolve().parent / family / TASK
        config, size = config_of(family, None)
        model = make_model(family, config, seed)
        save(model, config, folder)
        write_preprocessor(folder, size)
        expected = record(model, make_inputs(model.config, seed, size))
        np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main()
