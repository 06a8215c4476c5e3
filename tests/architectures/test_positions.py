"""Position layers: buckets of distances, relative position tables, and rotary angles."""

import numpy as np
import pytest
from keras import ops

from finetune_tf.architectures import RelativePositionBias, RelativePositions, RotaryPositions
from finetune_tf.architectures.positions import log_buckets, relative_buckets, rotate

B, L, D = 2, 6, 8
TOKENS = np.ones((B, L), "int32")

# Values of transformers' make_log_bucket_position: (buckets, max_distance): {distance: bucket}.
BUCKETS = {
    (8, 64): {0: 0, 1: 1, 4: 4, 5: 5, 10: 5, 11: 6, 20: 6, 31: 7, 63: 7, 64: 8, -5: -5, -63: -7},
    (256, 512): {127: 127, 130: 130, 135: 133, 300: 207, 500: 254, 511: 255, 600: 270, -512: -256},
    (2, 9): {0: 0, 1: 1, 5: 1, 70: 1, -70: -1},
}


@pytest.mark.parametrize("size", BUCKETS)
def test_deberta_buckets(size):
    distances = np.asarray([*BUCKETS[size]])
    np.testing.assert_array_equal(log_buckets(distances, *size), [*BUCKETS[size].values()])


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"max_distance": 2}, [0, 0, 0, 1, 2, 3, 3, 3, 3]),  # for distances -4 to 4
        ({"max_distance": 9, "num_buckets": 2}, [1, 1, 1, 1, 2, 3, 3, 3, 3]),
    ],
)
def test_large_distances_share_a_row(options, rows):
    layer = RelativePositions(D, **options)
    found = layer(np.zeros((3, 4), "int32"))
    np.testing.assert_array_equal(found[0], ops.take(layer.table.embeddings, rows, axis=0))


# Values of transformers' T5Attention._relative_position_bucket: (buckets, max_distance,
# bidirectional): {distance: bucket}.
T5_BUCKETS = {
    (32, 128, True): {0: 0, -1: 1, 1: 17, -7: 7, -8: 8, -30: 11, 90: 30, 127: 31, 500: 31},
    (32, 128, False): {0: 0, 1: 0, 90: 0, -1: 1, -15: 15, -16: 16, -30: 20, -127: 31, -500: 31},
    (8, 20, True): {-1: 1, -2: 2, -5: 2, -7: 3, 3: 6, 6: 6, 7: 7, 50: 7},
}


@pytest.mark.parametrize("options", T5_BUCKETS)
def test_t5_buckets(options):
    expected = T5_BUCKETS[options]
    distances = ops.convert_to_tensor([*expected])
    np.testing.assert_array_equal(relative_buckets(distances, *options), [*expected.values()])


@pytest.mark.slow
@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_buckets_against_pytorch(bidirectional):
    torch = pytest.importorskip("torch")
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(-300, 301)
    torch_buckets = T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional, num_buckets=32, max_distance=128
    )
    found = relative_buckets(ops.convert_to_tensor(distances), 32, 128, bidirectional)
    np.testing.assert_array_equal(found, torch_buckets)


def test_a_bias_depends_only_on_the_distance():
    layer = RelativePositionBias(2, num_buckets=8, used_buckets=8, max_distance=20)
    bias = np.asarray(layer(TOKENS))
    assert bias.shape == (1, 2, L, L)
    table = np.asarray(layer.table.embeddings)
    np.testing.assert_array_equal(bias[0, :, 0, 3], table[6])  # 3 after the query
    np.testing.assert_array_equal(bias[0, :, 5, 3], table[2])  # 2 before it
    for shift in range(L):
        diagonal = np.diagonal(bias, shift, 2, 3)
        np.testing.assert_array_equal(diagonal, diagonal[..., :1] + 0 * diagonal)


def test_rotary_angles():
    """Pairs of features as complex numbers are rotated by position / theta ** (f / F)."""
    table = RotaryPositions(D, theta=50.0)(TOKENS)
    x = np.random.default_rng(0).normal(size=(B, 3, L, D)).astype("float32")
    angles = np.arange(L)[:, None] * 50.0 ** (-np.arange(0, D, 2) / D)
    rotated = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angles)
    expected = np.concatenate([rotated.real, rotated.imag], axis=-1)
    np.testing.assert_allclose(rotate(x, table), expected, atol=1e-5)


def test_a_narrow_table_rotates_only_the_first_features():
    x = np.random.default_rng(0).normal(size=(B, 3, L, D)).astype("float32")
    table = RotaryPositions(4)(TOKENS)
    found = np.asarray(rotate(x, table))
    np.testing.assert_array_equal(found[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(found[..., :4], rotate(x[..., :4], table))


def test_explicit_position_ids():
    layer = RotaryPositions(D)
    ids = np.asarray([[0, 1, 2, 0, 1, 2], [3, 4, 5, 6, 7, 8]])
    full = layer(np.ones((1, 9)))[0]
    np.testing.assert_allclose(layer(TOKENS, ids), np.asarray(full)[ids], atol=1e-6)


def test_angles_are_float32_under_bfloat16():
    layer = RotaryPositions(D, dtype="mixed_bfloat16")
    assert layer(TOKENS).dtype == "float32"
