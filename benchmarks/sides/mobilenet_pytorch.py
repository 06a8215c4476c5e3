"""Fine-tuning of a MobileNetV2 with transformers on PyTorch, for `images_accuracy`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sides.common import Clock, peak_mb
from transformers import MobileNetV2ForImageClassification

# The part of PyTorch's names that `embeddings() | bottom(2)` selects in this network.
LOWER = ("conv_stem.", *(f"layer.{i}." for i in range(5)))


def fine_tune(
    policy: str,
    rate: float,
    seed: int,
    orders: np.ndarray,
    checkpoint: Path,
    arrays: dict,
    threads: int,
) -> dict:
    """Trains in a plain loop.

    Args:
        policy: A key of `images_accuracy.RATES`.
        rate: The highest learning rate.
        seed: Of dropout.
        orders: The rows of each batch (epochs, steps, batch), filled up with -1.
        checkpoint: The folder of the model.
        arrays: Images and class numbers: x_train, y_train, x_test, y_test.
        threads: Of PyTorch.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    imported = peak_mb()
    model = MobileNetV2ForImageClassification.from_pretrained(checkpoint, dtype=torch.float32).to(
        memory_format=torch.channels_last
    )
    if policy in ("frozen", "uncached"):
        model.mobilenet_v2.requires_grad_(False)
    for name, parameter in model.mobilenet_v2.named_parameters():
        if policy == "upper" and name.startswith(LOWER):
            parameter.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]

    def normalized(pixels: np.ndarray) -> torch.Tensor:
        levels = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # channels last in memory
        return (levels.float() / 255 - 0.5) / 0.5

    clock = Clock()
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    steps = orders.shape[0] * orders.shape[1]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(steps))
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # with the statistics of the checkpoint
    for batches in orders:
        for rows in batches:
            chosen = rows[rows >= 0]
            labels = torch.from_numpy(arrays["y_train"][chosen])
            loss = model(pixel_values=normalized(arrays["x_train"][chosen]), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        clock.mark()
    memory = peak_mb()
    model.eval()
    with torch.inference_mode():
        starts = range(0, len(arrays["x_test"]), 64)
        tests = [normalized(arrays["x_test"][start : start + 64]) for start in starts]
        predicted = np.concatenate([model(pixel_values=x).logits.argmax(1).numpy() for x in tests])
    return {
        "accuracy": float((predicted == arrays["y_test"]).mean()),
        "trainable": sum(parameter.numel() for parameter in learning),
        "peak_mb": memory,
        "imported_mb": imported,
        **clock.result(),
    }


def _schedule(steps: int) -> Callable[[int], float]:
    """The factors of `WarmupLinearDecay`: warm-up over a tenth of the steps, linear decay."""
    warm_up = max(0.1 * steps, 1)
    return lambda step: max(min(1.0, (step + 1) / warm_up, (steps - step) / (steps - warm_up)), 0.0)
