"""Which tokens a query may see, drawn: one row for each query, x where it sees a key."""

import keras
import numpy as np
import pytest

from finetune_tf.architectures import AttentionMask
from finetune_tf.architectures.masks import open_mask, prefix_mask, segment_mask

L = 5
TOKENS = np.asarray([[1, 1, 1, 1, 0]])

DRAWN = {
    "padding": ({}, {}, "xxxx."),
    "causal": ({"causal": True}, {}, "x.... xx... xxx.. xxxx. xxxx."),
    "window": ({"window": 1}, {}, "xx... xxx.. .xxx. ..xx. ...x."),
    "a window into the past": (
        {"window": 1, "causal": True},
        {},
        "x.... xx... .xx.. ..xx. ...x.",
    ),
    "padding sees nothing": ({"mask_queries": True}, {}, "xxxx. xxxx. xxxx. xxxx. ....."),
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


def drawn(mask):
    return " ".join("".join("x" if seen else "." for seen in row) for row in np.asarray(mask)[0, 0])


@pytest.mark.parametrize("name", DRAWN)
def test_what_a_token_sees(name):
    options, inputs, expected = DRAWN[name]
    layer = AttentionMask(**options)
    found = layer(TOKENS, **inputs)
    assert drawn(found) == expected
    assert found.dtype == "bool"
    # The symbolic shape says the same, as does a layer from the config.
    symbolic = {k: keras.Input(v.shape[1:], dtype="int32") for k, v in inputs.items()}
    spec = layer(keras.Input((L,), dtype="int32"), **symbolic)
    assert spec.shape[1:] == found.shape[1:] and spec.dtype == "bool"
    again = AttentionMask.from_config(layer.get_config())
    np.testing.assert_array_equal(again(TOKENS, **inputs), found)


def test_every_row_has_its_own_prefix_and_segments():
    assert prefix_mask(3, np.asarray([0, 3])).shape == (2, 1, 3, 3)
    masks = np.asarray(prefix_mask(3, np.asarray([0, 3])))
    assert drawn(masks[:1]) == "x.. xx. xxx" and drawn(masks[1:]) == "xxx xxx xxx"
    masks = np.asarray(segment_mask(np.asarray([[1, 1], [1, 2]])))
    assert drawn(masks[:1]) == "xx xx" and drawn(masks[1:]) == "x. .x"


def test_a_mask_that_hides_nothing():
    assert drawn(open_mask()) == "x"
