"""Heads on frozen features of images and texts in PyTorch, for `fusion`.

The layers, the distribution of initial weights, the optimizer and the schedule are those of
finetune_tf; the features and the batches are the same arrays.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

HEADS = 4  # of cross-attention
Batch = tuple[dict[str, np.ndarray], np.ndarray]


class Head(nn.Module):
    """A linear classifier on the features of one encoder."""

    def __init__(self, features: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.classifier = nn.Dropout(dropout), nn.Linear(features, labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns logits (B, labels)."""
        return self.classifier(self.dropout(features))


class Fusion(nn.Module):
    """Joins a vector of the image and one of the text, and classifies the result."""

    def __init__(self, how: str, images: int, texts: int, labels: int, size: int) -> None:
        super().__init__()
        self.how, norm = how, {"eps": 1e-3, "elementwise_affine": False}
        self.image, self.text = nn.Linear(images, size), nn.Linear(texts, size)
        self.image_norm, self.text_norm = (nn.LayerNorm(size, **norm) for _ in range(2))
        self.dropout = nn.Dropout(0.1)
        self.gate = nn.Linear(2 * size, size) if how == "gate" else None
        if how == "cross_attention":
            self.query, self.key, self.value, self.mixed = (nn.Linear(size, size) for _ in range(4))
        self.output = nn.Linear(2 * size if how == "concatenation" else size, size)
        self.head = Head(size, labels, 0.1)

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns logits (B, labels) of vectors, or of features (B, N, D) and (B, L, D)."""
        image = self.dropout(self.image_norm(self.image(image)))
        text = self.dropout(self.text_norm(self.text(text)))
        if self.how == "concatenation":
            joined = torch.cat([image, text], -1)
        elif self.how == "gate":
            share = torch.sigmoid(self.gate(torch.cat([image, text], -1)))
            joined = share * torch.tanh(image) + (1 - share) * torch.tanh(text)
        else:
            seen = text + self._attended(text, image)
            joined = (seen * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(nn.functional.gelu(self.output(joined)))

    def _attended(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        parts = split(self.query(text)), split(self.key(image)), split(self.value(image))
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        return self.mixed(mixed.transpose(1, 2).flatten(2))


def accuracy(
    kind: str,
    train: Iterable[Batch],
    test: Iterable[Batch],
    epochs: int,
    rate: float,
    labels: int,
    dropout: float,
    size: int,
) -> float:
    """Trains a head and returns the accuracy on the test.

    Args:
        kind: "text", "image", "concatenation", "gate" or "cross_attention".
        train: Batches with cached features and class numbers, in another order in each epoch.
        test: The batches of the test.
        epochs: How often `train` is iterated.
        rate: The highest learning rate.
        labels: The number of classes.
        dropout: The dropout rate of a head on one encoder.
        size: The number of features of a fusion.
    """
    torch.set_num_threads(1)  # the layers are too small for more
    first = _tensors(next(iter(test))[0])
    images, texts = (None if x is None else x.shape[-1] for x in first[:2])
    if kind in ("text", "image"):
        model = Head(texts or images, labels, dropout)
    else:
        model = Fusion(kind, images, texts, labels, size)
    for parameter in model.parameters():
        (nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.zeros_(parameter))
    learning = list(model.parameters())
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer, step, steps = torch.optim.AdamW(groups, lr=rate), 0, epochs * len(train)

    def logits(inputs: dict[str, np.ndarray]) -> torch.Tensor:
        image, text, mask = _tensors(inputs)
        if isinstance(model, Head):
            return model(image if text is None else text)
        return model(image, text, mask)

    model.train()
    for _ in range(epochs):
        for inputs, numbers in train.as_numpy_iterator():
            step += 1
            for group in optimizer.param_groups:  # warm-up, then a linear decay
                group["lr"] = rate * min(
                    1, step / (0.1 * steps), (steps - step + 1) / (0.9 * steps)
                )
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(logits(inputs), torch.tensor(numbers).long())
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        found = [
            (logits(inputs).argmax(1).numpy() == numbers)
            for inputs, numbers in test.as_numpy_iterator()
        ]
    return float(np.concatenate(found).mean())


def _tensors(inputs: dict[str, Any]) -> tuple[torch.Tensor | None, ...]:
    """The features of images, those of texts, and the attention mask, each if there is one."""
    image = text = mask = None
    for name, value in inputs.items():
        tensor = torch.tensor(np.asarray(value))
        if name == "attention_mask":
            mask = tensor.float()
        elif tensor.shape[-1] == IMAGE_FEATURES:
            image = tensor
        else:
            text = tensor
    return image, text, mask


IMAGE_FEATURES = 1280  # of MobileNetV2
