"""How tokens see each other: distances, windows, and the part that positions have in scores."""

import numpy as np
import pytest
from keras import ops

from finetune_tf.architectures import (
    ConvolutionBlock,
    DisentangledAttention,
    FeedForward,
    RelativePositions,
    SelfAttention,
)
from finetune_tf.architectures.relative_positions import log_buckets

B, L, D, HEADS = 2, 6, 8, 2
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, L, D)).astype("float32")
POSITIONS = RNG.normal(size=(1, 2 * L + 1, D)).astype("float32")
MASK = (np.arange(L) < [[L], [3]]).astype("int32")

# From transformers' make_log_bucket_position: (buckets, largest distance): {distance: bucket}.
BUCKETS = {
    (8, 64): {0: 0, 1: 1, 4: 4, 5: 5, 10: 5, 11: 6, 20: 6, 31: 7, 63: 7, 64: 8, -5: -5, -63: -7},
    (256, 512): {127: 127, 130: 130, 135: 133, 300: 207, 500: 254, 511: 255, 600: 270, -512: -256},
    (2, 9): {0: 0, 1: 1, 5: 1, 70: 1, -70: -1},
}


@pytest.mark.parametrize("size", BUCKETS)
def test_buckets_of_distances(size):
    distances = np.asarray([*BUCKETS[size]])
    np.testing.assert_array_equal(log_buckets(distances, *size), [*BUCKETS[size].values()])


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"max_distance": 2}, [0, 0, 0, 1, 2, 3, 3, 3, 3]),  # for distances -4 to 4
        ({"max_distance": 9, "num_buckets": 2}, [1, 1, 1, 1, 2, 3, 3, 3, 3]),
    ],
)
def test_far_tokens_share_a_row(options, rows):
    layer = RelativePositions(D, **options)
    found = layer(np.zeros((3, 4), "int32"))
    np.testing.assert_array_equal(found[0], ops.take(layer.table.embeddings, rows, axis=0))


def test_scores_add_up_from_contents_and_positions():
    layer = DisentangledAttention(D, HEADS, score_parts=3, initializer_range=0.5)
    found = layer(HIDDEN, MASK, POSITIONS)

    def heads(dense, x):
        return np.asarray(dense(x)).reshape(*x.shape[:-1], HEADS, D // HEADS)

    query, key, value = (heads(part, HIDDEN) for part in (layer.query, layer.key, layer.value))
    table_key = heads(layer.position_key, POSITIONS[0])
    table_query = heads(layer.position_query, POSITIONS[0])
    mixed = np.zeros_like(query)
    for b, i, h in np.ndindex(B, L, HEADS):
        scores = np.zeros(L)  # where the query is masked, they stay alike
        for j in range(L if MASK[b, i] else 0):
            content = query[b, i, h] @ key[b, j, h]
            to_position = query[b, i, h] @ table_key[i - j + L, h]
            to_content = table_query[i - j + L, h] @ key[b, j, h]
            scores[j] = (content + to_position + to_content) / np.sqrt(3 * D // HEADS)
            scores[j] = scores[j] if MASK[b, j] else -1e9
        weights = np.exp(scores)
        mixed[b, i, h] = weights @ value[b, :, h] / weights.sum()
    expected = layer.output_dense(mixed.reshape(B, L, D))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_masked_tokens_see_everything_alike_and_teach_nothing():
    import tensorflow as tf

    layer = DisentangledAttention(D, HEADS, initializer_range=0.5)
    layer.build(HIDDEN.shape, MASK.shape, POSITIONS.shape)
    with tf.GradientTape() as tape:
        found = layer(HIDDEN, MASK, POSITIONS)
        loss = tf.reduce_sum(found[1, 3:] ** 2)
    mean = ops.mean(layer.value(HIDDEN[1]), axis=0, keepdims=True)
    expected = ops.broadcast_to(layer.output_dense(mean), (3, D))
    np.testing.assert_allclose(found[1, 3:], expected, atol=1e-5)
    asking = [layer.query.kernel, layer.key.kernel, layer.position_key.kernel]
    for gradient in tape.gradient(loss, asking):
        np.testing.assert_array_equal(gradient, np.zeros((D, D)))


def test_a_window_hides_what_is_further_away():
    layer = SelfAttention(D, HEADS, initializer_range=0.5, window=2)
    changed = HIDDEN.copy()
    changed[:, 3] += 1.0
    before, after = (np.asarray(layer(x, np.ones((B, L)))) for x in (HIDDEN, changed))
    moved = np.abs(after - before).max(axis=(0, 2)) > 1e-4
    assert moved.tolist() == [False, True, True, True, True, True]


def test_a_convolution_sees_no_further_than_its_kernel_and_leaves_zeros_behind_the_text():
    block = ConvolutionBlock(
        SelfAttention(D, HEADS, name="attention", window=0),
        FeedForward(4, D, name="feed_forward"),
        kernel_size=3,
        convolution_activation="sigmoid",  # not 0 at 0
        convolution_initializer_range=0.5,
    )
    before = np.asarray(block(HIDDEN, MASK))
    np.testing.assert_array_equal(before[1, 3:], np.zeros((3, D)))
    changed = HIDDEN.copy()
    changed[0, 0] += 1.0
    moved = np.abs(np.asarray(block(changed, MASK)) - before).max(axis=(0, 2)) > 1e-4
    assert moved.tolist() == [True, True, False, False, False, False]


def test_the_convolution_is_of_the_input_not_of_the_output():
    """Without what the block itself does, what is left is the convolved input."""
    block = ConvolutionBlock(
        SelfAttention(D, HEADS, name="attention"),
        FeedForward(4, D, name="feed_forward"),
        convolution_activation="linear",
        convolution_initializer_range=0.5,
    )
    block.build(HIDDEN.shape, MASK.shape)
    block.feed_forward_norm.gamma.assign(np.zeros(D))
    kernel, bias = (ops.convert_to_numpy(w) for w in block.convolution.weights)
    padded = np.pad(HIDDEN, ((0, 0), (1, 1), (0, 0)))
    convolved = sum(padded[:, k : k + L] @ kernel[k] for k in range(3)) + bias
    expected = block.convolution_norm(convolved.astype("float32"))
    np.testing.assert_allclose(block(HIDDEN, np.ones((B, L))), expected, atol=1e-5)
