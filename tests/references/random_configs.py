"""Random configurations of every family of encoders, as transformers spells them.

Drawn are the keys that PyTorch's classes read, with values that they can run. Left out is what
they read and cannot run: a head size that is not the hidden size over the heads, an even
convolution, no token type at all outside of DeBERTa, fewer than 25 buckets in MPNet, a head of
`legacy` false above embeddings of another size. Left out as well is what makes another model of
an encoder: `is_decoder`, and rotations of ModernBERT that are scaled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from references.random_decoders import DECODER_DRAWS
from references.random_encoder_decoders import ENCODER_DECODER_DRAWS

Choose = Callable[[Sequence[Any]], Any]

# fmt: off
ACTIVATIONS = [
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6",
    "silu", "tanh", "sigmoid", "leaky_relu", "mish", "relu2", "linear",
]
# fmt: on
DROPOUT = [0.0, 0.1, 0.5]
EPSILON = [1e-12, 1e-7, 1e-5, 1e-2]
# The longer ones leave room for rows that are long enough for relative positions to share a bucket.
POSITIONS = [16, 17, 48]


def random_config(family: str, task: str, seed: int) -> dict[str, Any]:
    """A configuration drawn from all values that change the numbers.

    Args:
        family: A `model_type`.
        task: Name of a task.
        seed: Another one gives another configuration.
    """
    choose = random.Random(f"{family} {task} {seed}").choice
    return DRAWS[family](choose) | _task_keys(task, choose)


def _task_keys(task: str, choose: Choose) -> dict[str, Any]:
    if task == "fill-mask":
        return {"tie_word_embeddings": choose([True, True, False])}
    if task == "token-classification":
        return {"num_labels": choose([2, 3, 7])}
    if task == "text-classification":
        problem = choose(
            [None, "single_label_classification", "multi_label_classification", "regression"]
        )
        counts = {None: [1, 2, 3, 7], "regression": [1]}
        return {"problem_type": problem, "num_labels": choose(counts.get(problem, [2, 3, 7]))}
    return {}


def _some_of(content: dict[str, Any], choose: Choose) -> dict[str, Any]:
    """Some of the items of a dict, so that what is missing takes its default."""
    return {key: value for key, value in content.items() if choose([True, False])}


def _encoder(choose: Choose, pads: Sequence[int | None] = (0, 3, None)) -> dict[str, Any]:
    """What all families have, under BERT's names."""
    heads = choose([1, 2, 3, 5])
    return {
        "vocab_size": choose([7, 40, 101]),
        "hidden_size": heads * choose([4, 7, 8] if heads > 1 else [8, 13]),
        "num_attention_heads": heads,
        "num_hidden_layers": choose([1, 2, 3]),
        "intermediate_size": choose([5, 16, 33]),
        "max_position_embeddings": choose(POSITIONS),
        "hidden_act": choose(ACTIVATIONS),
        "layer_norm_eps": choose(EPSILON),
        "hidden_dropout_prob": choose(DROPOUT),
        "attention_probs_dropout_prob": choose(DROPOUT),
        "pad_token_id": choose(pads),
    }


def _bert(choose: Choose) -> dict[str, Any]:
    return _encoder(choose) | {
        "type_vocab_size": choose([1, 2, 4]),
        "classifier_dropout": choose([None, 0.0, 0.4]),
    }


def _distilbert(choose: Choose) -> dict[str, Any]:
    names = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    config = _encoder(choose)
    del config["layer_norm_eps"]  # PyTorch has 1e-12 in the code.
    return {names.get(key, key): value for key, value in config.items()} | {
        "sinusoidal_pos_embds": choose([True, False]),
        "qa_dropout": choose(DROPOUT),
        "seq_classif_dropout": choose(DROPOUT),
    }


def _roberta(choose: Choose) -> dict[str, Any]:
    # Positions count from behind the padding id, which therefore has to be a number.
    return _bert(choose) | {"pad_token_id": choose([0, 1, 3])}


def _electra(choose: Choose) -> dict[str, Any]:
    config = _bert(choose)
    return config | {"embedding_size": choose([config["hidden_size"], 5, 11, 24])}


def _albert(choose: Choose) -> dict[str, Any]:
    config = _encoder(choose)
    layers = config["num_hidden_layers"]
    return config | {
        "type_vocab_size": choose([1, 2, 4]),
        "embedding_size": choose([config["hidden_size"], 5, 11, 24]),
        "num_hidden_groups": choose(range(1, layers + 1)),
        "inner_group_num": choose([1, 2]),
        "classifier_dropout_prob": choose([0.0, 0.4]),
    }


def _mpnet(choose: Choose) -> dict[str, Any]:
    # PyTorch pads with 1 and has 32 buckets, whatever these two keys say.
    return _encoder(choose, pads=(0, 1, 5)) | {"relative_attention_num_buckets": choose([32, 40])}


def _deberta_of_both_versions(choose: Choose) -> dict[str, Any]:
    config = _encoder(choose) | {
        "type_vocab_size": choose([0, 1, 3]),
        "relative_attention": choose([True, True, False]),
        "max_relative_positions": choose([-1, 9, 64]),
        "position_biased_input": choose([True, False]),
        "pos_att_type": choose(
            [None, [], ["c2p"], ["p2c"], ["p2c", "c2p"], "p2c|c2p", ["c2p", "p2c", "p2p"]]
        ),
        "pooler_dropout": choose(DROPOUT),
        "pooler_hidden_act": choose(ACTIVATIONS),
    }
    config |= choose([{}, {"cls_dropout": 0.0}, {"cls_dropout": 0.4}])
    return config | choose([{}, {"legacy": False}, {"embedding_size": 11}])


def _deberta(choose: Choose) -> dict[str, Any]:
    return _deberta_of_both_versions(choose) | choose([{}, {"talking_head": True}])


def _deberta_v2(choose: Choose) -> dict[str, Any]:
    config = _deberta_of_both_versions(choose)
    config |= choose([{}, {"position_buckets": choose([-1, 2, 4, 7, 8])}])
    config |= choose([{}, {"norm_rel_ebd": choose(["none", "layer_norm", "none|Layer_Norm"])}])
    config |= choose([{}, {"share_att_key": choose([True, False])}])
    heads, width = config["num_attention_heads"], config["hidden_size"]
    config |= choose([{}, {"attention_head_size": width // heads}])
    convolution = {
        "conv_kernel_size": choose([1, 3, 5]),
        "conv_groups": choose([1, heads]),
        "conv_act": choose(ACTIVATIONS),
    }
    some = _some_of(convolution, choose)
    return config | choose([{}, {"conv_kernel_size": 0}, convolution, some])


def _modernbert(choose: Choose) -> dict[str, Any]:
    heads, layers = choose([1, 2, 3]), choose([1, 2, 3, 4])
    kinds, thetas = ["full_attention", "sliding_attention"], [10.0, 1000.0, 160000.0]
    rope = {kind: {"rope_type": "default", "rope_theta": choose(thetas)} for kind in kinds}
    old_rope = {"global_rope_theta": choose(thetas), "local_rope_theta": choose(thetas)}
    return {
        "vocab_size": choose([7, 40, 101]),
        "hidden_size": heads * choose([4, 6, 8] if heads > 1 else [8, 14]),
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": choose([5, 16, 33]),
        "max_position_embeddings": choose(POSITIONS),
        "hidden_activation": choose(ACTIVATIONS),
        "norm_eps": choose(EPSILON),
        "pad_token_id": choose([0, 3, None]),
        **dict.fromkeys(["bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"], 1),
        **{key: choose([True, False]) for key in ("norm_bias", "attention_bias", "mlp_bias")},
        **{key: choose([True, False]) for key in ("decoder_bias", "classifier_bias")},
        "attention_dropout": choose(DROPOUT),
        "embedding_dropout": choose(DROPOUT),
        "mlp_dropout": choose(DROPOUT),
        "classifier_dropout": choose(DROPOUT),
        "classifier_pooling": choose(["cls", "mean"]),
        "classifier_activation": choose(ACTIVATIONS),
        "local_attention": choose([1, 2, 4, 5, 128]),
        **choose(
            [
                {},
                {"global_attn_every_n_layers": choose([1, 2, 3])},
                {"layer_types": [choose(kinds) for _ in range(layers)]},
            ]
        ),
        **choose([{}, {"rope_parameters": rope}, _some_of(old_rope, choose)]),
    }


def _nomic_bert(choose: Choose) -> dict[str, Any]:
    heads = choose([1, 2, 3])
    rope = {"rope_type": "default", "rope_theta": choose([10.0, 1000.0, 160000.0])}
    return {
        "vocab_size": choose([7, 40, 101]),
        "hidden_size": heads * choose([4, 6, 8]),
        "num_attention_heads": heads,
        "num_hidden_layers": choose([1, 2, 3]),
        "intermediate_size": choose([5, 16, 33]),
        "max_position_embeddings": choose(POSITIONS),
        "hidden_act": choose(ACTIVATIONS),
        "layer_norm_eps": choose(EPSILON),
        "type_vocab_size": choose([1, 2, 3]),
        "pad_token_id": choose([0, 3]),
        "hidden_dropout_prob": choose(DROPOUT),
        "attention_probs_dropout_prob": choose(DROPOUT),
        "classifier_dropout": choose([None, *DROPOUT]),
        **choose([{}, {"rope_parameters": rope}]),
    }


def _gte(choose: Choose) -> dict[str, Any]:
    return _nomic_bert(choose) | {"type_vocab_size": choose([0, 1, 2])}


def _eurobert(choose: Choose) -> dict[str, Any]:
    return DECODER_DRAWS["llama"](choose) | {
        "pad_token_id": choose([0, 3, None]),
        "classifier_pooling": choose(["bos", "mean", "late"]),
        **dict.fromkeys(["bos_token_id", "eos_token_id", "mask_token_id"], 1),
    }


DRAWS: dict[str, Callable[[Choose], dict[str, Any]]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "electra": _electra,
    "albert": _albert,
    "mpnet": _mpnet,
    "deberta": _deberta,
    "deberta-v2": _deberta_v2,
    "modernbert": _modernbert,
    "nomic_bert": _nomic_bert,
    "gte": _gte,
    "eurobert": _eurobert,
    **DECODER_DRAWS,
    **ENCODER_DECODER_DRAWS,
}
