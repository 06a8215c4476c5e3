r"""Store what Captum gives for small models of `make_families.py`.

In ``FAMILY/TASK/explanations.npz``, for the target class ``target``:

- bert: ``input_ids`` and ``token_type_ids`` (1, length), and ``integrated_gradients`` (length,)
  above the embeddings from the embeddings of padding, with the first and the last token as they
  are; ``rollout`` (length,) of the first token by PyTorch's attention weights;
- vit: ``pixel_values`` (1, height, width, 3) uint8, and ``integrated_gradients`` (height, width)
  from normalized pixels of 0;
- resnet: ``pixel_values`` and ``grad_cam`` (rows, columns) at the last stage.

The function that is explained is the log-odds of the target. It was run with Python 3.11,
transformers 5.23.0, torch 2.13.0 and captum 0.9.0 on a CPU::

    pip install "transformers>=5" torch captum
    cd tests && python -m references.make_explanations
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
STEPS, TARGET = 50, 1
TEXTS, VIT, RESNET = (
    HERE / folder
    for folder in ("bert/text-classification", "vit/image-classification",
                   "resnet/image-classification")
)  # fmt: skip


def log_odds(logits):
    """The log-odds of the target."""
    import torch

    others = [i for i in range(logits.shape[-1]) if i != TARGET]
    return logits[:, TARGET] - torch.logsumexp(logits[:, others], dim=-1)


def of_text(folder: Path = TEXTS) -> dict[str, np.ndarray]:
    """Integrated gradients above the embeddings of a BERT, and attention rollout."""
    import torch
    from captum.attr import LayerIntegratedGradients
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    config = model.config
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, (1, 9))
    types = np.array([[0] * 5 + [1] * 4])
    baseline = ids.copy()
    baseline[:, 1:-1] = config.pad_token_id
    as_tensor = torch.from_numpy

    def score(input_ids, token_type_ids):
        mask = torch.ones_like(input_ids)
        found = model(input_ids, attention_mask=mask, token_type_ids=token_type_ids)
        return log_odds(found.logits)

    explained = LayerIntegratedGradients(score, model.base_model.embeddings).attribute(
        as_tensor(ids),
        baselines=as_tensor(baseline),
        additional_forward_args=(as_tensor(types),),
        n_steps=STEPS,
        method="riemann_middle",
    )
    with torch.no_grad():
        attentions = model(
            as_tensor(ids), token_type_ids=as_tensor(types), output_attentions=True
        ).attentions
    rollout = np.eye(ids.shape[1])
    for weights in attentions:
        mean = weights[0].mean(dim=0).double().numpy()
        rollout = 0.5 * (mean + np.eye(len(mean))) @ rollout
    return {
        "input_ids": ids.astype("int32"),
        "token_type_ids": types.astype("int32"),
        "integrated_gradients": explained[0].sum(dim=-1).detach().numpy(),
        "rollout": rollout[0],
    }


def _images(folder: Path):
    """A model, random levels (1, height, width, 3), and the normalized pixels for PyTorch."""
    import torch
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    size = processor["size"]
    levels = np.random.default_rng(1).integers(0, 256, (1, size["height"], size["width"], 3))
    mean, stddev = (np.array(processor[key]) for key in ("image_mean", "image_std"))
    pixels = (levels / 255 - mean) / stddev
    pixels = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype("float32"))
    return model, levels.astype("uint8"), pixels


def of_patches(folder: Path = VIT) -> dict[str, np.ndarray]:
    """Integrated gradients of a vision transformer."""
    from captum.attr import IntegratedGradients

    model, levels, pixels = _images(folder)
    explained = IntegratedGradients(lambda x: log_odds(model(x).logits)).attribute(
        pixels, n_steps=STEPS, method="riemann_middle"
    )
    of_pixels = explained[0].sum(dim=0).detach().numpy()
    return {"pixel_values": levels, "integrated_gradients": of_pixels}


def of_maps(folder: Path = RESNET) -> dict[str, np.ndarray]:
    """Grad-CAM of a ResNet."""
    from captum.attr import LayerGradCam

    model, levels, pixels = _images(folder)
    last = model.base_model.encoder.stages[-1]
    explained = LayerGradCam(lambda x: log_odds(model(x).logits), last).attribute(
        pixels, relu_attributions=True
    )
    return {"pixel_values": levels, "grad_cam": explained[0, 0].detach().numpy()}


ALL = {TEXTS: of_text, VIT: of_patches, RESNET: of_maps}

if __name__ == "__main__":
    for folder, explain in ALL.items():
        np.savez(folder / "explanations.npz", target=TARGET, **explain(folder))
        print(folder)
