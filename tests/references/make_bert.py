r"""Make small random BERTs of odd configuration with PyTorch, and write down what they compute.

What it makes, for each name in `CONFIGS`, in ``bert/NAME/`` next to this file:

- ``config.json`` and ``model.safetensors`` as transformers saves them;
- ``expected.npz``: the inputs, and what PyTorch gives for them in float32 without dropout.

The arrays of a classifier:

- ``input_ids``, ``attention_mask`` (rows of different length), ``token_type_ids``, ``labels``;
- ``logits``, and ``logits_ids_only`` with mask and token types left out;
- ``gradient/NAME`` of the loss for every parameter NAME;
- ``losses`` before each of `STEPS` steps of AdamW on this batch, and ``logits_after`` them.

A bare ``BertModel`` has ``last_hidden_state`` and ``pooler_output`` instead of all but the
inputs.

Every weight, biases and LayerNorm included, is random, so that two swapped, transposed or
unloaded ones show. Seeds are fixed. It was run with Python 3.11, transformers 5.23.0 and torch
2.13.0 on a CPU; other releases may differ in the last bits::

    pip install "transformers>=5" torch
    python tests/references/make_bert.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

HERE = Path(__file__).resolve().parent / "bert"
LENGTHS = (11, 7, 11, 2)  # tokens of each row
STEPS, LEARNING_RATE, WEIGHT_DECAY = 5, 1e-3, 0.01

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
    model = kind(BertConfig(**config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.normal_(mean, 0.2, generator=generator)
    return model


def make_inputs(config: BertConfig, seed: int) -> dict[str, np.ndarray]:
    """Token ids in two segments with padding after them, and targets of the right kind."""
    rng = np.random.default_rng(seed)
    length = max(LENGTHS)
    mask = (np.arange(length) < np.asarray(LENGTHS)[:, None]).astype("int32")
    ids = rng.integers(1, config.vocab_size, mask.shape).astype("int32") * mask
    types = rng.integers(0, config.type_vocab_size, mask.shape).astype("int32") * mask
    rows, labels = len(LENGTHS), config.num_labels
    if config.problem_type == "regression":
        targets = rng.normal(size=(rows, 1)).astype("float32")
    elif config.problem_type == "multi_label_classification":
        targets = rng.integers(0, 2, (rows, labels)).astype("float32")
    else:
        targets = rng.integers(0, labels, rows).astype("int32")
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": types,
        "labels": targets,
    }


def record(model: PreTrainedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and outputs of a model; a classifier's weights are trained ones afterwards."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if tensors["labels"].dtype == torch.int32:
        tensors["labels"] = tensors["labels"].long()
    if isinstance(model, BertModel):
        del tensors["labels"]
        with torch.no_grad():
            output = model(**tensors)
        return {
            **{name: inputs[name] for name in tensors},
            "last_hidden_state": output.last_hidden_state.numpy(),
            "pooler_output": output.pooler_output.numpy(),
        }
    output = model(**tensors)
    output.loss.backward()
    with torch.no_grad():
        ids_only = model(tensors["input_ids"]).logits.numpy()
    return {
        **inputs,
        "logits": output.logits.detach().numpy(),
        "logits_ids_only": ids_only,
        **{f"gradient/{name}": p.grad.numpy().copy() for name, p in model.named_parameters()},
        **_train(model, tensors),
    }


def _train(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """A few steps of AdamW, in which biases and LayerNorm do not decay."""
    parameters = list(model.named_parameters())
    spared = [p for name, p in parameters if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in parameters if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        eps=1e-8,
    )
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**tensors).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = model(**{k: v for k, v in tensors.items() if k != "labels"}).logits.numpy()
    return {"losses": np.asarray(losses, "float32"), "logits_after": after}


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
