"""Attention masks as pictures: one row for each query, x where it attends to a key."""

import keras
import numpy as np
import pytest

from finetune_tf.architectures import AttentionMask
from finetune_tf.architectures.masks import open_mask, prefix_mask, segment_mask

L = 5
TOKENS = np.asarray([[1, 1, 1, 1, 0]])

PICTURES = {
    "padding": ({}, {}, "xxxx."),
    "causal": ({"causal": True}, {}, "x.... xx... xxx.. xxxx. xxxx."),
    "window": ({"window": 1}, {}, "xx... xxx.. .xxx. ..xx. ...x."),
    "causal window": (
        {"window": 1, "causal": True},
        {},
        "x.... xx... .xx.. ..xx. ...x.",
    ),
    "masked queries": ({"mask_queries": True}, {}, "xxxx. xxxx. xxxx. xxxx. ....."),
    "segments": (
        {},
        {"segment_ids": np.asarray([[4, 4, 2, 2, 0]])},
        "xx... xx... ..xx. ..xx. .....",
    ),
    "causal segments": (
        {"causal": True},
        {"segment_ids": np.asarray([[4, 4, 2, 2, 0]])},
        "x.... xx... ..x.. ..xx. .....",
    ),
    "prefix": (
        {"causal": True},
        {"prefix_lengths": np.asarray([2])},
        "xx... xx... xxx.. xxxx. xxxx.",
    ),
}


def picture(mask):
    return " ".join("".join("x" if seen else "." for seen in row) for row in np.asarray(mask)[0, 0])


@pytest.mark.parametrize("name", PICTURES)
def test_visible_tokens(name):
    options, inputs, expected = PICTURES[name]
    layer = AttentionMask(**options)
    found = layer(TOKENS, **inputs)
    assert picture(found) == expected
    assert found.dtype == "bool"
    # The symbolic shape agrees, and a layer from the config computes the same mask.
    symbolic = {k: keras.Input(v.shape[1:], dtype="int32") for k, v in inputs.items()}
    spec = layer(keras.Input((L,), dtype="int32"), **symbolic)
    assert spec.shape[1:] == found.shape[1:] and spec.dtype == "bool"
    again = AttentionMask.from_config(layer.get_config())
    np.testing.assert_array_equal(again(TOKENS, **inputs), found)


def test_prefixes_and_segments_per_sequence():
    assert prefix_mask(3, np.asarray([0, 3])).shape == (2, 1, 3, 3)
    masks = np.asarray(prefix_mask(3, np.asarray([0, 3])))
    assert picture(masks[:1]) == "x.. xx. xxx" and picture(masks[1:]) == "xxx xxx xxx"
    masks = np.asarray(segment_mask(np.asarray([[1, 1], [1, 2]])))
    assert picture(masks[:1]) == "xx xx" and picture(masks[1:]) == "x. .x"


def test_a_mask_that_hides_nothing():
    assert picture(open_mask()) == "x"
