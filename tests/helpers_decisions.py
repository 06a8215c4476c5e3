"""Classifiers whose calibration is known: labels are drawn from their own probabilities."""

import numpy as np
from helpers_models import ENGLISH
from helpers_tasks import CASES, small_task_model

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
    texts, generator = texts_at_random(rows), np.random.default_rng(1)
    _, names, problem = CASES[case]
    labels = ft.Labels(names, problem)
    if case == "tokens":
        blank = ft.data.Examples({"tokens": [text.split() for text in texts]}, name="validation")
    else:
        blank = ft.data.Examples({"text": texts}, name="validation")
    logits, encoded = outputs(model, blank)
    if case == "tokens":
        tags = [
            [names[_one(row[place] / temperature, generator)] for place in words[:, 0]]
            for row, words in zip(logits, encoded.words, strict=True)
        ]
        columns = {**blank.columns, "tags": tags}
        return model, ft.data.Examples(columns, labels, "validation")
    if problem == "multi_label_classification":
        chances = 1 / (1 + np.exp(-np.stack(logits) / temperature))
        applies = generator.random(chances.shape) < chances
        values = [[name for name, yes in zip(names, row, strict=True) if yes] for row in applies]
    else:
        values = [names[_one(row / temperature, generator)] for row in logits]
    return model, ft.data.Examples({"text": texts, "label": values}, labels, "validation")


def _one(logits: np.ndarray, generator: np.random.Generator) -> int:
    chances = np.exp(np.float64(logits) - logits.max())
    return int(generator.choice(len(chances), p=chances / chances.sum()))
