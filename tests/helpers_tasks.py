"""Small models of every task: a few layers that are traced in a fraction of the time of a BERT."""

from pathlib import Path

import numpy as np
from helpers_models import ENGLISH, POSITIONS, SPECIAL

ROWS, LENGTH, VOCABULARY = 4, 4, len(SPECIAL) + len(ENGLISH)

#: By the name of a case: the task, the labels, and their problem type.
CASES = {
    "one label": ("text-classification", ("neg", "mid", "pos"), "single_label_classification"),
    "two labels": ("text-classification", ("neg", "pos"), "single_label_classification"),
    "several labels": ("text-classification", ("a", "b", "c"), "multi_label_classification"),
    "number": ("text-classification", ("stars",), "regression"),
    "tokens": ("token-classification", ("O", "B-X", "I-X"), "single_label_classification"),
    "words": ("fill-mask", None, None),
    "answers": ("question-answering", None, None),
    "vectors": ("feature-extraction", None, None),
}


def small_task_model(case: str, tokenizer: Path | None = None):
    """A FineTuneModel of a case in `CASES`."""
    import keras

    from finetune_tf import FineTuneModel, Labels
    from finetune_tf.architectures import ClassificationHead, Pooling
    from finetune_tf.model.model_info import ModelInfo

    task, names, problem = CASES[case]
    labels = names and Labels(names, problem)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    hidden = keras.layers.Embedding(VOCABULARY, 8, name="embeddings")(inputs["input_ids"])
    hidden = keras.layers.Dense(8, "tanh", name="block_0")(hidden)
    if task in ("text-classification", "feature-extraction"):
        hidden = Pooling("mean", name="pooling")(hidden, inputs["attention_mask"])
    if task != "feature-extraction":
        outputs = len(labels or ()) or (2 if task == "question-answering" else VOCABULARY)
        hidden = ClassificationHead(
            outputs, 0.0, per_label=task == "question-answering", name="classifier"
        )(hidden)
    model = FineTuneModel(inputs=inputs, outputs=hidden, name="small")
    config = {"model_type": "bert", "max_position_embeddings": POSITIONS}
    model.info = ModelInfo(
        checkpoint="small",
        tokenizer=str(tokenizer),
        task=task,
        labels=labels,
        pooling="mean",
        config=config | {"vocab_size": VOCABULARY, "type_vocab_size": 2},
        head_layers=("classifier",),
    )
    weights = np.random.default_rng(0)
    model.set_weights([weights.normal(0, 1, w.shape) for w in model.get_weights()])
    return model


def rows_for(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (rows, length) and targets; as many rows as tokens, where shapes do not tell them apart.

    Vectors have two rows a pair, and scores (pairs,).
    """
    random = np.random.default_rng(1)
    ids = random.integers(5, VOCABULARY, (ROWS * (2 if case == "vectors" else 1), LENGTH))
    tokens = np.full((ROWS, LENGTH), -100)
    tokens[:, 0], tokens[1:3, 1] = [0, 2, 1, 1], [2, 0]
    words = np.full((ROWS, LENGTH), -100)
    words[:, 2], words[2, 0] = [7, 9, 7, 8], 6
    targets = {
        "one label": np.array([0, 2, 1, 1]),
        "two labels": np.array([0, 1, 1, 0]),
        "several labels": np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], "float32"),
        "number": np.array([1.5, -2.0, 0.0, 3.0], "float32"),
        "tokens": tokens,
        "words": words,
        "answers": np.array([[1, 2], [0, 0], [3, 3], [2, 3]]),
        "vectors": np.array([3.0, 1.0, 2.0, 0.0], "float32"),
    }
    return ids.astype("int32"), targets[case]
