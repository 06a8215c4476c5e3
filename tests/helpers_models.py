"""Tiny random models: BERT checkpoints as Hugging Face folders, and a model without one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HIDDEN, HEADS, INTERMEDIATE, POSITIONS = 24, 3, 32, 32
ENGLISH = [
    *("a", "the", "film", "was", "very", "good", "bad", "fine", "dull"),
    *("long", "short", "story", "actor", "great", "poor", "and", "not"),
]
CHINESE = list("这部电影很好看坏难无聊精彩故事演员非常不喜欢我的")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_checkpoint(
    folder: Path,
    words: Sequence[str] = ENGLISH,
    *,
    blocks: int = 2,
    seed: int = 0,
    **config: object,
) -> Path:
    """Writes config.json, model.safetensors and tokenizer of a random BERT without a head.

    Args:
        folder: Made if it is missing.
        words: The vocabulary besides the special tokens.
        blocks: Number of encoder layers.
        seed: Of the weights.
        **config: More keys for config.json; dropout is off unless they say otherwise.
    """
    from safetensors.numpy import save_file
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*SPECIAL, *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=POSITIONS
    )
    tokenizer.save_pretrained(folder)
    content = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "num_hidden_layers": blocks,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    tensors = _random_tensors(len(vocabulary), blocks, np.random.default_rng(seed))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _random_tensors(vocab_size: int, blocks: int, random: np.random.Generator) -> dict:
    tensors = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        tensors[f"{name}.weight"] = random.normal(0, 0.1, (outputs, inputs)).astype("float32")
        tensors[f"{name}.bias"] = random.normal(0, 0.02, outputs).astype("float32")

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = random.normal(1, 0.02, HIDDEN).astype("float32")
        tensors[f"{name}.bias"] = random.normal(0, 0.02, HIDDEN).astype("float32")

    tables = {"word": vocab_size, "position": POSITIONS, "token_type": 2}
    for name, rows in tables.items():
        table = random.normal(0, 0.1, (rows, HIDDEN)).astype("float32")
        tensors[f"embeddings.{name}_embeddings.weight"] = table
    norm("embeddings.LayerNorm")
    for i in range(blocks):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", HIDDEN, INTERMEDIATE)
        linear(f"{layer}.output.dense", INTERMEDIATE, HIDDEN)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", HIDDEN, HIDDEN)
    return tensors


def small_model(labels: object = ("no", "yes"), checkpoint: Path | None = None):
    """A FineTuneModel of nine variables, for tests in which the architecture is no matter.

    Its stages are embeddings, block_0, norm, block_1 and classifier, and it is traced in a
    fraction of the time that a BERT takes.

    Args:
        labels: As for `finetune_tf.load`.
        checkpoint: Where its tokenizer comes from.
    """
    import keras

    from finetune_tf import FineTuneModel, Labels
    from finetune_tf.architectures import ClassificationHead, Pooling
    from finetune_tf.architectures.layers import LayerNorm
    from finetune_tf.model.model_info import ModelInfo

    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    hidden = keras.layers.Embedding(len(ENGLISH) + 5, 8, name="embeddings")(inputs["input_ids"])
    hidden = keras.layers.Dense(8, "tanh", name="block_0")(hidden)
    hidden = LayerNorm(name="norm")(hidden)
    hidden = keras.layers.Dense(8, "tanh", name="block_1")(hidden)
    pooled = Pooling("mean", name="pooling")(hidden, inputs["attention_mask"])
    labels = Labels.of(labels)
    logits = ClassificationHead(len(labels), dropout=0.0, name="classifier")(pooled)
    model = FineTuneModel(inputs=inputs, outputs=logits, name="small")
    model.info = ModelInfo(
        checkpoint="small",
        tokenizer=str(checkpoint),
        task="text-classification",
        labels=labels,
        pooling="mean",
        config={"model_type": "bert", "max_position_embeddings": POSITIONS},
        head_layers=("classifier",),
    )
    return model


def token_batch(rows: int = 16, length: int = 6, seed: int = 0):
    """Random token ids (rows, length) and whether the first word is of the upper half (rows,)."""
    ids = np.random.default_rng(seed).integers(5, 5 + len(ENGLISH), (rows, length)).astype("int32")
    return ids, (ids[:, 0] >= 5 + len(ENGLISH) // 2).astype("int32")
