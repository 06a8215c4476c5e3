"""A plain PyTorch training loop over the batches that finetune_tf made: same rows, same order."""

import tempfile
from typing import Any

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup

import finetune_tf as ft


def same_start(auto_class: type, encoder: Any) -> Any:
    """A model of transformers with the weights of one of ours, the new head included."""
    with tempfile.TemporaryDirectory() as folder:
        return auto_class.from_pretrained(encoder.save_pretrained(folder))


def fine_tune(model: Any, batches: Any, epochs: int, rate: float) -> list[float]:
    """Trains as `presets.cross_entropy` does.

    AdamW, weight decay 0.01 except on biases and normalisations, clipping at 1.0, a tenth of the
    steps to warm up, linear decay.

    Args:
        model: Of transformers; returns a loss where it gets labels.
        batches: From `Examples.batches`, with targets.
        epochs: How often to go through them.
        rate: The highest learning rate.

    Returns:
        The mean loss of each epoch's batches, dropout included.
    """
    torch.set_num_threads(2)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    steps = epochs * int(batches.cardinality())
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    of_answers = hasattr(model, "qa_outputs")
    model.train()
    curve = []
    for _ in range(epochs):
        losses = []
        for inputs, targets in batches.as_numpy_iterator():
            loss = model(**_tensors(inputs), **_labels(targets, of_answers)).loss
            loss.backward()
            losses.append(loss.item())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        curve.append(float(np.mean(losses)))
    return curve


def predictions(model: Any, test: ft.data.Examples, encoder: Any) -> list[Any]:
    """What a PyTorch model says of each example; logits are read by the code that reads ours.

    Args:
        model: Of transformers.
        test: What to predict.
        encoder: A model of finetune_tf, for its tokenizer and its task; its weights do nothing.
    """
    task, rows = encoder.task, []
    model.eval()
    with torch.no_grad():
        for inputs, _ in test.batches(encoder, 64).as_numpy_iterator():
            output = model(**_tensors(inputs))
            logits = output.get("logits")
            if logits is None:
                logits = torch.stack([output.start_logits, output.end_logits], 1)
            rows += list(logits.numpy())
    encoded = test.encoded(encoder)
    rows = [
        row.take(range(len(ids)), task.token_axis)
        for row, ids in zip(rows, encoded.inputs["input_ids"], strict=True)
    ]
    return task.decide(rows, encoded, test)


def _tensors(inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value).long() for name, value in inputs.items()}


def _labels(targets: np.ndarray, of_answers: bool) -> dict[str, torch.Tensor]:
    targets = torch.tensor(targets).long()
    if not of_answers:
        return {"labels": targets}
    return {"start_positions": targets[:, 0], "end_positions": targets[:, 1]}
