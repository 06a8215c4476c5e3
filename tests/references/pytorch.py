"""What PyTorch computes for small random encoders: every family, every task.

`record` gives the arrays that a reimplementation is compared with, in float32 without dropout:

- the inputs: ``input_ids``, ``attention_mask`` (rows of different length), ``token_type_ids``
  where the model has token types, and ``labels``;
- ``logits``, and ``logits_ids_only`` with all inputs but the ids left out. Question answering has
  start and end logits, (batch, 2, length); a bare model has its last hidden state there;
- ``gradient/NAME`` of the loss for every parameter that takes part, NAME as in the file;
- ``losses`` before each of a few steps of AdamW on this batch, and ``logits_after`` them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from references.fixed_configs import FIXED, fixed_config
from references.random_configs import random_config
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

__all__ = [
    "FAMILIES",
    "TASKS",
    "Family",
    "fixed_config",
    "make_inputs",
    "make_model",
    "random_config",
    "randomize",
    "record",
    "save",
]

LENGTHS, LONG_LENGTHS = (11, 7, 11, 2), (37, 20, 37, 2)  # tokens of each row
STEPS, LEARNING_RATE, WEIGHT_DECAY = 5, 1e-3, 0.01
IGNORED = -100  # a target that PyTorch's losses skip

TASKS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "feature-extraction": "Model",
    "text-generation": "ForCausalLM",
    "text2text-generation": "ForConditionalGeneration",
}
OTHER_CLASSES = {
    "GPT2ForCausalLM": "GPT2LMHeadModel",
    "MarianForConditionalGeneration": "MarianMTModel",
}
PREFIXES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
    "albert": "Albert",
    "mpnet": "MPNet",
    "deberta": "Deberta",
    "deberta-v2": "DebertaV2",
    "modernbert": "ModernBert",
    "nomic_bert": "NomicBert",
    "gte": "Gte",
    "eurobert": "EuroBert",
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "t5": "T5",
    "mt5": "MT5",
    "bart": "Bart",
    "mbart": "MBart",
    "pegasus": "Pegasus",
    "marian": "Marian",
}
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
ENCODER_DECODERS = ("t5", "mt5", "bart", "mbart", "pegasus", "marian")
TEXT_TO_TEXT = "text2text-generation"  # the only task of encoder-decoders
# Encoders that are loaded as prefix language models: their classes for masked language modelling,
# called with source and target joined to one sequence.
PREFIX_MODELS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
# Keys of older releases, and those that transformers writes in their place.
OLDER_KEYS = {
    "global_attn_every_n_layers": "layer_types",
    "global_rope_theta": "rope_parameters",
    "local_rope_theta": "rope_parameters",
}


@dataclass(frozen=True)
class Family:
    """PyTorch's classes of one `model_type`, and one fixed odd configuration."""

    config: type[PreTrainedConfig]
    models: dict[str, type[PreTrainedModel]]  # by task
    fixed: dict[str, Any]


FAMILIES: dict[str, Family] = {
    name: Family(
        getattr(transformers, f"{prefix}Config"),
        {
            task: getattr(transformers, OTHER_CLASSES.get(prefix + suffix, prefix + suffix))
            for task, suffix in TASKS.items()
            if task != "text-generation" or name in DECODERS
            if (task == TEXT_TO_TEXT) == (name in ENCODER_DECODERS)
            if hasattr(transformers, OTHER_CLASSES.get(prefix + suffix, prefix + suffix))
        }
        | (
            {TEXT_TO_TEXT: getattr(transformers, f"{prefix}ForMaskedLM")}
            if name in PREFIX_MODELS
            else {}
        ),
        FIXED[name],
    )
    for name, prefix in PREFIXES.items()
}


def make_model(family: str, task: str, config: dict[str, Any], seed: int) -> PreTrainedModel:
    """A random model without dropout.

    Args:
        family: A key of `FAMILIES`.
        task: A key of `TASKS`.
        config: Keys of the family's config class; what is missing takes its default.
        seed: Seed of the weights.
    """
    kinds = FAMILIES[family]
    # The config class writes into the dicts it is given.
    full = kinds.config(**copy.deepcopy(config), attn_implementation="eager")
    return for_task(randomize(kinds.models[task](full), seed), task)


def for_task(model: PreTrainedModel, task: str) -> PreTrainedModel:
    """Gives a masked language model the inputs of an encoder-decoder if the task needs them."""
    if task != TEXT_TO_TEXT or not type(model).__name__.endswith("ForMaskedLM"):
        return model
    masked = model.forward

    def forward(
        input_ids: torch.Tensor,
        decoder_input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Any:
        ids = torch.cat([input_ids, decoder_input_ids], 1)  # (batch, length)
        real = torch.ones_like(ids)
        source, length = input_ids.shape[1], ids.shape[1]
        if attention_mask is not None:
            real = torch.cat([attention_mask, decoder_attention_mask], 1)
        places = torch.arange(length)
        is_target = places >= source
        seen = ~is_target[None, :] | (places[None, :] <= places[:, None])  # (queries, keys)
        seen = seen[None, None] & (real[:, None, None, :] == 1)
        skips = model.config.model_type in ("roberta", "xlm-roberta", "camembert")
        first = model.config.pad_token_id + 1 if skips else 0
        more_types = getattr(model.config, "type_vocab_size", 0) > 1
        output = masked(
            input_ids=ids,
            attention_mask=torch.zeros(seen.shape).masked_fill(~seen, torch.finfo().min),
            token_type_ids=(is_target.long() * more_types).expand(ids.shape),
            position_ids=(real.cumsum(1) - 1).clamp(min=0) + first,
        )
        output.logits = output.logits[:, source:]
        if labels is not None:
            output.loss = torch.nn.functional.cross_entropy(
                output.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
            )
        return output

    model.forward = forward
    return model


def randomize(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Every weight random, biases too, without dropout: LayerNorm scales around 1, others around 0.

    Two swapped, transposed or unloaded weights show. Tied ones stay tied.
    """
    scales = {name for name in _normalisations(model) if name.endswith("weight")}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue  # sinusoidal positions, which some releases leave out of the file
            parameter.normal_(1.0 if name in scales else 0.0, 0.2, generator=generator)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def make_inputs(config: PreTrainedConfig, task: str, seed: int) -> dict[str, np.ndarray]:
    """Token ids with random token types and padding after them, and targets of the right kind.

    Args:
        config: The model's own, complete one.
        task: A key of `TASKS`.
        seed: Seed of ids, token types and targets.

    Returns:
        ``input_ids`` and ``attention_mask`` (batch, length) and, where the model has token types,
        ``token_type_ids``. ``labels`` are class numbers (batch,) or floats (batch, labels) in
        text classification, numbers (batch, length) with -100 for what is ignored in token
        classification and mask filling, in text generation those of the next tokens, and first and
        last token (batch, 2) in question answering. A bare model has none.
    """
    rng = np.random.default_rng(seed)
    positions = getattr(config, "max_position_embeddings", 48)
    lengths = np.asarray(LONG_LENGTHS if positions >= 48 else LENGTHS)
    mask = (np.arange(max(lengths)) < lengths[:, None]).astype("int32")
    pad = config.pad_token_id or 0
    ids = rng.integers(1, config.vocab_size, mask.shape).astype("int32")
    ids -= ids <= pad  # any id but the padding
    inputs = {"input_ids": np.where(mask, ids, np.int32(pad)), "attention_mask": mask}
    if task == TEXT_TO_TEXT and config.model_type in PREFIX_MODELS:
        inputs = {name: array[:, : max(lengths) // 2] for name, array in inputs.items()}
        inputs["attention_mask"] *= np.arange(max(lengths) // 2) < lengths[:, None] // 2
        return inputs | _targets_of_sources(config, rng, lengths)  # they share the positions
    if types := getattr(config, "type_vocab_size", 0):
        inputs["token_type_ids"] = rng.integers(0, types, mask.shape).astype("int32") * mask
    if task == "text-classification":
        inputs["labels"] = _targets_of_texts(config, rng, len(lengths))
    elif task == "question-answering":
        first = rng.integers(0, lengths)
        inputs["labels"] = np.stack([first, rng.integers(first, lengths)], 1).astype("int32")
    elif task == TEXT_TO_TEXT:
        inputs |= _targets_of_sources(config, rng, lengths)
    elif task == "text-generation":
        following = np.where(mask, inputs["input_ids"], IGNORED)[:, 1:]
        inputs["labels"] = np.pad(following, ((0, 0), (0, 1)), constant_values=IGNORED)
        inputs["labels"] = inputs["labels"].astype("int32")
    elif task in ("token-classification", "fill-mask"):
        classes, share = (
            (config.vocab_size, 0.2) if task == "fill-mask" else (config.num_labels, 0.7)
        )
        chosen = (mask == 1) & (rng.random(mask.shape) < share)
        chosen[0, 1] = True
        numbers = rng.integers(0, classes, mask.shape)
        inputs["labels"] = np.where(chosen, numbers, IGNORED).astype("int32")
    return inputs


def _targets_of_texts(config: PreTrainedConfig, rng: np.random.Generator, rows: int) -> np.ndarray:
    labels, problem = config.num_labels, config.problem_type
    if problem == "regression" or (problem is None and labels == 1):
        return rng.normal(size=(rows, 1)).astype("float32")
    if problem == "multi_label_classification":
        return rng.integers(0, 2, (rows, labels)).astype("float32")
    return rng.integers(0, labels, rows).astype("int32")


def _targets_of_sources(
    config: PreTrainedConfig, rng: np.random.Generator, lengths: np.ndarray
) -> dict[str, np.ndarray]:
    """The decoder's inputs, of other lengths than the sources, and the tokens it has to predict."""
    lengths = lengths[::-1] // 2 + 1
    mask = (np.arange(max(lengths)) < lengths[:, None]).astype("int32")
    size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    ids, targets = (rng.integers(0, size, mask.shape).astype("int32") for _ in range(2))
    return {
        "decoder_input_ids": ids * mask,
        "decoder_attention_mask": mask,
        "labels": np.where(mask, targets, IGNORED).astype("int32"),
    }


def record(
    model: PreTrainedModel, task: str, inputs: dict[str, np.ndarray], steps: int = STEPS
) -> dict[str, np.ndarray]:
    """Inputs and what PyTorch gives for them; the model's weights are trained ones afterwards.

    Args:
        model: From `make_model`; save it before, not after.
        task: A key of `TASKS`.
        inputs: From `make_inputs`.
        steps: How many steps of AdamW.
    """
    tensors = {
        name: torch.from_numpy(array).long() if array.dtype == np.int32 else torch.from_numpy(array)
        for name, array in inputs.items()
    }
    logits = _logits(model, task, tensors)
    ids = {name: tensor for name, tensor in tensors.items() if name.endswith("input_ids")}
    ids_only = _logits(model, task, ids)
    _loss(model, task, tensors).backward()
    gradients = {
        model.all_tied_weights_keys.get(name, name): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    gradients = {
        f"gradient/{name}": gradient.numpy()
        for name, gradient in as_in_the_file(model, gradients).items()
    }
    losses = train(model, lambda: _loss(model, task, tensors), steps)
    return {
        **inputs,
        "logits": logits,
        "logits_ids_only": ids_only,
        **gradients,
        "losses": np.asarray(losses, "float32"),
        "logits_after": _logits(model, task, tensors),
    }


def as_in_the_file(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> dict:
    """Under the names, and joined as, in a file that transformers writes for the model."""
    return revert_weight_conversion(model, tensors)


def _logits(model: PreTrainedModel, task: str, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        # DeBERTa drops an axis of a regression's logits if it is given labels.
        output = model(**{name: tensor for name, tensor in tensors.items() if name != "labels"})
    if task == "question-answering":
        return torch.stack(
            [output.start_logits, output.end_logits], 1
        ).numpy()  # (batch, 2, length)
    return (output.last_hidden_state if task == "feature-extraction" else output.logits).numpy()


def _loss(model: PreTrainedModel, task: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """PyTorch's own loss; for a bare model the mean square of each text's mean hidden state."""
    if task == "feature-extraction":
        mask = tensors["attention_mask"].unsqueeze(-1)  # (batch, length, 1)
        hidden = model(**tensors).last_hidden_state
        return ((hidden * mask).sum(1) / mask.sum(1)).square().mean()
    tensors = dict(tensors)
    if task == "text-generation":  # PyTorch's class shifts the labels itself
        real = tensors["attention_mask"] == 1
        tensors["labels"] = torch.where(real, tensors["input_ids"], IGNORED)
    if task == "question-answering":
        positions = tensors.pop("labels").unbind(1)
        tensors |= dict(zip(("start_positions", "end_positions"), positions, strict=True))
    return model(**tensors).loss


def train(model: PreTrainedModel, loss_of: Callable[[], torch.Tensor], steps: int) -> list[float]:
    """A few steps of AdamW, in which biases and normalisations do not decay.

    Args:
        model: The model.
        loss_of: Computes its loss for the batch.
        steps: How many steps.

    Returns:
        The loss before each step.
    """
    normalisations = _normalisations(model)
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        spare = name.endswith("bias") or name in normalisations
        (spared if spare else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        eps=1e-8,
    )
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _normalisations(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of all normalisations."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if type(module).__name__.endswith(("LayerNorm", "RMSNorm", "BatchNorm2d"))
        for name, _ in module.named_parameters()
    }


def save(model: PreTrainedModel, config: dict[str, Any], folder: Path) -> None:
    """Writes a folder whose config.json spells the keys of `config` as `config` does.

    transformers writes the newest spelling; most checkpoints of the hub have an older one.
    """
    model.save_pretrained(folder)
    path = Path(folder) / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    newer = {OLDER_KEYS[key] for key in config if key in OLDER_KEYS}
    content = {key: value for key, value in content.items() if key not in newer}
    content |= {key: value for key, value in config.items() if key != "num_labels"}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
