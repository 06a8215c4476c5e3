"""Graphs that read texts: the tokenizer of BERT in front of the forward pass.

A graph can reproduce the tokenizers of BERT: a normalization and a splitting into words that treat
each character by itself, and WordPiece. What happens to a character is asked of the tokenizer
itself, for all characters of Unicode, and stored as a table in the graph. WordPiece is the
operation of tensorflow-text (Song et al. 2021, Fast WordPiece Tokenization). The normalization of
tensorflow-text is not used, because it replaces other characters, such as ² by 2. The result is
compared with the tokenizer on difficult texts before a graph is written.
"""

import json
from typing import Any

from finetune_tf.base.extras import require_package
from finetune_tf.errors import ModelError
from finetune_tf.model.exports.graph import Endpoint, Graph
from finetune_tf.model.exports.graph_tokenizer import MARKS, GraphTokenizer
from finetune_tf.model.exports.hard_texts import hard_texts
from finetune_tf.model.exports.saved_model import TOKENS
from finetune_tf.tasks import TASKS
from finetune_tf.tasks.text_vectors import pads_texts

_ADVICE = "Export without strings=True: the graph reads token ids, and the tokenizer is beside it."


def require_strings(model: Any, format: str) -> None:
    """Checks that a graph can read the texts of a model.

    Args:
        model: A FineTuneModel.
        format: The format of the export.

    Raises:
        ModelError: If the format or the task does not fit, or the tokenizer is no BERT tokenizer.
        MissingExtraError: If tensorflow-text is not installed.
    """
    if format != "tf_saved_model":
        raise ModelError(
            f"strings=True is for the format 'tf_saved_model', found {format!r}, whose engine has "
            "no operations on texts."
        )
    if not model.task.serves_texts:
        names = ", ".join(task.name for task in TASKS.values() if task.serves_texts)
        raise ModelError(
            f"strings=True is for {names}; the model is for {model.task.name}. {_ADVICE}"
        )
    reason = _obstacle(model.tokenizer)
    if pads_texts(model.config):
        reason = f"{model.config['model_type']} reads texts with padding to the maximum length"
    if reason:
        raise ModelError(f"A graph cannot reproduce the tokenizer: {reason}. {_ADVICE}")
    require_package("tensorflow_text", "A graph that reads texts needs")


def _obstacle(tokenizer: Any) -> str:
    """Why a graph cannot reproduce a tokenizer; empty if it can."""
    if tokenizer is None:
        return "the model has none"
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for name, wanted in (
        ("normalizer", "BertNormalizer"),
        ("pre_tokenizer", "BertPreTokenizer"),
        ("model", "WordPiece"),
    ):
        found = (parts[name] or {}).get("type")
        if found != wanted:
            return f"its {name} is {found}, and graphs have {wanted} alone"
    for token in parts["added_tokens"]:
        if token["normalized"] or token["single_word"]:
            return (
                f"the added token {token['content']!r} is found in normalized texts or whole words"
            )
    if len(parts["added_tokens"]) > len(MARKS):
        return f"it has {len(parts['added_tokens'])} added tokens, more than {len(MARKS)}"
    return ""


def endpoints_of_texts(graph: Graph, model: Any) -> dict[str, Endpoint]:
    """Returns the functions of a graph that reads texts.

    Args:
        graph: The forward pass.
        model: The model, with its tokenizer.

    Returns:
        "serve" reads `text` (batch,), "pairs" `text` and `text_pair`, and "tokens" the inputs of
        the model. The first two return the outputs of the model and, for a choice among labels,
        `probabilities` and `label`, the name of the most probable one. Where the texts of a pair
        are compared, "pairs" returns what `Task.compared` does.

    Raises:
        ModelError: If the tokens of a difficult text differ from those of the tokenizer.
    """
    import tensorflow as tf

    limit = model.row_length
    tokenizer = GraphTokenizer(model.tokenizer, limit)
    _check(tokenizer, model.tokenizer, limit)
    labels = model.labels if model.task.has_labels else None

    def outputs_of(*texts: Any) -> dict[str, Any]:
        encoding = tokenizer(*texts)
        return graph({name: encoding[name] for name in graph.signature})

    def compare(given: dict[str, Any]) -> dict[str, Any]:
        both = [outputs_of(given[name]) for name in ("text", "text_pair")]
        return model.task.compared(*map(model.task.unnamed, both))

    def serve(given: dict[str, Any]) -> dict[str, Any]:
        outputs = outputs_of(*(given[name] for name in ("text", "text_pair") if name in given))
        if labels is None or labels.problem_type != "single_label_classification":
            return outputs
        probabilities = tf.nn.softmax(outputs["logits"])
        names = tf.gather(tf.constant(list(labels)), tf.argmax(probabilities, axis=-1))
        return outputs | {"probabilities": probabilities, "label": names}

    def texts(*names: str) -> dict[str, Any]:
        return {name: tf.TensorSpec((None,), tf.string, name) for name in names}

    return {
        "serve": Endpoint(texts("text"), serve),
        "pairs": Endpoint(
            texts("text", "text_pair"), compare if model.task.compares_texts else serve
        ),
        TOKENS: Endpoint(graph.signature, graph),
    }


def _check(graph: GraphTokenizer, tokenizer: Any, limit: int) -> None:
    """Compares the tokens of difficult texts, and of pairs of them."""
    texts = hard_texts(tokenizer)
    texts.append(" ".join(texts))  # too long for every model, with other tokens at each end
    options = {"truncation": True, "max_length": limit, "return_token_type_ids": True}
    for given in ([texts], [texts, texts[1:] + texts[:1]]):
        wanted = tokenizer(*given, **options)
        found = graph(*given)
        for row, text in enumerate(texts):
            length = len(wanted["input_ids"][row])
            same = all(
                found[name][row, :length].numpy().tolist() == wanted[name][row]
                and not found["attention_mask"][row, length:].numpy().any()
                for name in ("input_ids", "token_type_ids", "attention_mask")
            )
            if not same:
                raise ModelError(
                    "A graph cannot reproduce the tokenizer: the tokens of the text "
                    f"{text[:60]!r} differ. {_ADVICE}"
                )
