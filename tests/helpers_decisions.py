"""Classifiers whose calibration is known: labels are drawn from their own probabilities."""

import numpy as np
from helpers_models import ENGLISH
from helpers_tasks import small_task_model

import finetune_tf as ft
from finetune_tf.evaluation.predict import outputs


def texts_at_random(rows: int, seed: int = 0) -> list[str]:
    """Texts of five to nine words that the tiny tokenizers know; all are different."""
    generator = np.random.default_rng(seed)
    texts = {}
    while len(texts) < rows:
        texts[" ".join(generator.choice(ENGLISH, generator.integers(5, 10)))] = None
    return list(texts)


def drawn_case(case: str, checkpoint, temperature: float, rows: int = 600, scale: float = 6.0):
    """A small model, and examples whose labels come from its logits divided by a temperature.

    Args:
        case: A key of `helpers_tasks.CASES`.
        checkpoint: Where its tokenizer comes from.
        temperature: The temperature that calibrates the model.
        rows: The number of examples.
        scale: A factor of the logits, so that the model is certain of something.
    """
    model = small_task_model(case, checkpoint)
    dense = model.get_layer("classifier").dense
    dense.kernel.assign(dense.kernel * scale)
    dense.bias.assign(dense.bias * 0.3)
    return model, drawn_examples(model, temperature, rows)


def drawn_bert(checkpoint, names, problem=None, temperature: float = 2.0, rows: int = 200):
    """The same with a tiny BERT, which can be saved."""
    model = ft.load(checkpoint, labels=ft.Labels(names, problem))
    train_at_random(model)
    return model, drawn_examples(model, temperature, rows)


def train_at_random(model) -> None:
    """Gives a model a random output layer whose logits vary much around 0."""
    dense = model.get_layer("classifier").dense
    dense.kernel.assign(np.random.default_rng(0).normal(0, 1, dense.kernel.shape))
    logits, _ = outputs(model, ft.data.Examples({"text": texts_at_random(50)}))
    mean, deviation = np.mean(logits, axis=0), np.std(logits, axis=0)
    dense.kernel.assign(dense.kernel * (4 / deviation))
    dense.bias.assign((dense.bias - mean) * (4 / deviation))


def drawn_examples(model, temperature: float, rows: int) -> ft.data.Examples:
    """Examples with labels that are drawn from the probabilities of a model."""
    texts, generator, labels = texts_at_random(rows), np.random.default_rng(1), model.labels
    if model.task.token_axis is not None:
        blank = ft.data.Examples({"tokens": [text.split() for text in texts]}, name="validation")
    else:
        blank = ft.data.Examples({"text": texts}, name="validation")
    logits, encoded = outputs(model, blank)
    if model.task.token_axis is not None:
        tags = [
            [labels[_one(row[place] / temperature, generator)] for place in words[:, 0]]
            for row, words in zip(logits, encoded.words, strict=True)
        ]
        return ft.data.Examples({**blank.columns, "tags": tags}, labels, "validation")
    if labels.problem_type == "multi_label_classification":
        chances = 1 / (1 + np.exp(-np.stack(logits) / temperature))
        applies = generator.random(chances.shape) < chances
        values = [[name for name, yes in zip(labels, row, strict=True) if yes] for row in applies]
    else:
        values = [labels[_one(row / temperature, generator)] for row in logits]
    return ft.data.Examples({"text": texts, "label": values}, labels, "validation")


def _one(logits: np.ndarray, generator: np.random.Generator) -> int:
    chances = np.exp(np.float64(logits) - logits.max())
    return int(generator.choice(len(chances), p=chances / chances.sum()))
