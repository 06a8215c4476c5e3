"""Which examples can be packed into rows of several texts, and into which rows."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from finetune_tf.data.buckets import length_buckets
from finetune_tf.data.packing import Packing, cost_of_padded, lengths_of_items, packing_of
from finetune_tf.errors import DataError
from finetune_tf.messages import say
from finetune_tf.tasks import Encoded
from finetune_tf.tasks.feature import TOKENS

# Arguments of `batches` that decide which rows a batch has, and their values without effect.
_PLANS = {"tokens_per_batch": None, "drop_remainder": False, "balance": False, "order": None}

# How many times the wanted number of items a batch may have before a message says so.
_MOST_ABOVE = 1.25


def packed_rows(
    encoded: Encoded,
    model: Any,
    lengths: Mapping[str, np.ndarray],
    batch_size: int,
    packing: bool | int | str,
    options: Mapping[str, Any],
    name: str,
) -> Packing | None:
    """Plans the rows of packed texts, or returns None where "auto" decides against it.

    Args:
        encoded: From the model's task.
        model: A model from `load`, or its upper part.
        lengths: The lengths (rows,) of rows along each axis that batches have.
        batch_size: The items of a batch on average: texts, or groups of texts such as pairs.
        packing: True, the tokens of a row, or "auto": where texts can be packed, nothing else
            decides what makes a batch, and the estimated work is less than with buckets.
        options: Other arguments of `batches`, among them `shuffle` and `buckets`.
        name: The name of the examples, for messages.

    Raises:
        DataError: If the texts, the model or another argument do not go with packing, or a text is
            longer than a row.
    """
    given = [n for n, neutral in _PLANS.items() if options.get(n, neutral) is not neutral]
    reason = _reason(encoded, model, lengths)
    limit = model.max_length
    if packing == "auto":
        if reason or given or not options["shuffle"] or encoded.targets is None:
            return None
        of_items = lengths_of_items(lengths[TOKENS], encoded.group)
        rows = packing_of(of_items, batch_size, limit=limit, most_lengths=_most_lengths())
        padded = length_buckets(lengths[TOKENS], count=options["buckets"])
        return rows if rows.cost < cost_of_padded(lengths[TOKENS], padded) else None
    if reason:
        raise DataError(
            f"The texts of {name} cannot be packed into common rows: {reason}. Leave packing out, "
            'or write packing="auto", which packs where it can.'
        )
    if given:
        raise DataError(
            f"packing decides which texts make a batch, so it does not go with {given[0]}. Leave "
            "one of them out."
        )
    of_items = lengths_of_items(lengths[TOKENS], encoded.group)
    longest = int(of_items.max())
    row_length = None if packing is True else packing
    if row_length is not None and row_length < longest:
        raise DataError(
            f"packing={row_length} is less than the {longest} tokens of the longest "
            f"{'text' if encoded.group == 1 else 'pair'} of {name}. Use longer rows, packing=True, "
            f"or max_length={row_length // encoded.group}, which truncates texts."
        )
    if row_length is not None and row_length > limit:
        raise DataError(
            f"packing={row_length} is more than the {limit} tokens of the model's rows."
        )
    rows = packing_of(of_items, batch_size, row_length, limit, _most_lengths())
    items, wanted = len(of_items) / rows.batches, min(batch_size, len(of_items))
    if items > _MOST_ABOVE * wanted:  # a batch has at least one row
        say(
            f"{name}: a batch has {items:.0f} {'texts' if encoded.group == 1 else 'pairs'} on "
            f"average instead of {batch_size}, because so many are in a row of "
            f"{max(each.row_length for each in rows.groups)} tokens. Use shorter rows, or leave "
            "packing out."
        )
    return rows


def _most_lengths() -> int:
    """How many lengths rows may have: one on GPUs and TPUs, where each shape is costly."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    accelerators = [d for d in tf.config.list_logical_devices() if d.device_type != "CPU"]
    return 1 if accelerators else 2


def _reason(encoded: Encoded, model: Any, lengths: Mapping[str, np.ndarray]) -> str | None:
    """Says why texts cannot be packed; None if they can."""
    task = model.task
    if reason := model.why_not_packed:
        return reason
    if list(lengths) != [TOKENS]:
        return "the inputs of the model do not run along the tokens of a text"
    if not lengths[TOKENS].all():
        return "one of them has no tokens"
    longest = int(lengths_of_items(lengths[TOKENS], encoded.group).max())
    if longest > model.max_length:  # the texts of a group share a row
        return f"a pair of them has {longest} tokens, but a row at most {model.max_length}"
    if task.scores_tokens and encoded.targets is None:
        return "they are prompts without completions, from which nothing is learned"
    return None
