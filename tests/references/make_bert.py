r"""Make small random BERTs of odd configuration with PyTorch, and write down what they compute.

What it makes, for each name in `CONFIGS`, in ``bert/NAME/`` next to this file:

- ``config.json`` and ``model.safetensors`` as transformers saves them;
- ``expected.npz``: the inputs, and what PyTorch gives for them in float32 without dropout.

The arrays of a classifier:

- ``input_ids``, ``attention_mask`` (rows of different length), ``token_type_ids``, ``labels``;
- ``logits``, and ``logits_ids_only`` with mask and token types left out;
- ``gradient/NAME`` of the loss for every parameter NAME;
- ``losses`` before each of five steps of AdamW on this batch, and ``logits_after`` them.

A bare ``BertModel`` has ``last_hidden_state`` and ``pooler_output`` instead of all but the
inputs.

Every weight, biases and LayerNorm included, is random, so that two swapped, transposed or
unloaded ones show. Seeds are fixed. It was run with Python 3.11, transformers 5.23.0 and torch
2.13.0 on a CPU; other releases may differ in the last bits::

    pip install "transformers>=5" torch
    cd tests && python -m references.make_bert
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from references import pytorch
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

HERE = Path(__file__).resolve().parent / "bert"
TASK = "text-classification"

CONFIGS: dict[str, dict] = {
    # Two blocks, as few token types as there can be, an epsilon that nobody guesses.
    "relu": {
        "hidden_act": "relu",
        "layer_norm_eps": 1e-3,
        "type_vocab_size": 1,
        "vocab_size": 31,
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 13,
        "id2label": {0: "no", 1: "maybe", 2: "yes"},
        "label2id": {"no": 0, "maybe": 1, "yes": 2},
    },
    # The tanh approximation of GELU, an odd number of heads, a narrow head size.
    "gelu_new": {
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-6,
        "type_vocab_size": 3,
        "vocab_size": 23,
        "hidden_size": 30,
        "num_attention_heads": 5,
        "num_hidden_layers": 1,
        "intermediate_size": 44,
        "max_position_embeddings": 11,
    },
    # BERT's own activation and epsilon, dropout in the config, more labels than usual.
    "gelu": {
        "vocab_size": 29,
        "hidden_size": 20,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 28,
        "max_position_embeddings": 17,
        "classifier_dropout": 0.3,
        "hidden_dropout_prob": 0.2,
        "num_labels": 5,
    },
    # A bare BertModel: no head, and tensor names without the prefix "bert.".
    "base": {
        "hidden_act": "silu",
        "layer_norm_eps": 1e-5,
        "vocab_size": 27,
        "hidden_size": 18,
        "num_attention_heads": 6,
        "num_hidden_layers": 2,
        "intermediate_size": 25,
        "max_position_embeddings": 12,
    },
}


def make_model(config: dict, seed: int, kind: type[PreTrainedModel]) -> PreTrainedModel:
    """A PyTorch model without dropout: LayerNorm scales around 1, all other weights around 0."""
    return pytorch.randomize(kind(BertConfig(**config)), seed)


def make_inputs(config: BertConfig, seed: int) -> dict[str, np.ndarray]:
    """Token ids in two segments with padding after them, and targets of the right kind."""
    return pytorch.make_inputs(config, TASK, seed)


def record(model: PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and outputs of a model; a classifier's weights are trained ones afterwards."""
    if not isinstance(model, BertModel):
        return pytorch.record(model, TASK, inputs)
    inputs = {name: array for name, array in inputs.items() if name != "labels"}
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return {
        **inputs,
        "last_hidden_state": output.last_hidden_state.numpy(),
        "pooler_output": output.pooler_output.numpy(),
    }


def main() -> None:
    """Write every checkpoint with its expected values."""
    for seed, (name, config) in enumerate(CONFIGS.items(), start=1):
        kind = BertModel if name == "base" else BertForSequenceClassification
        model = make_model(config, seed, kind)
        model.save_pretrained(HERE / name)
        np.savez_compressed(
            HERE / name / "expected.npz", **record(model, make_inputs(model.config, seed))
        )


if __name__ == "__main__":
    main()
