"""Attention layers: disentangled scores, queries that are a part of the context, other contexts."""

import numpy as np
import pytest
from keras import ops

from finetune_tf.architectures import (
    ConvolutionBlock,
    DisentangledAttention,
    EncoderBlock,
    FeedForward,
    MultiHeadAttention,
    RelativePositionBias,
    RelativePositions,
    RotaryPositions,
)
from finetune_tf.architectures.masks import (
    causal_mask,
    padding_mask,
    pair_mask,
    seen_tokens,
    window_mask,
)

B, L, D, HEADS = 2, 6, 8, 2
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, L, D)).astype("float32")
POSITIONS = RNG.normal(size=(1, 2 * L + 1, D)).astype("float32")
MASK = (np.arange(L) < [[L], [3]]).astype("int32")

PAIRS = pair_mask(MASK)


def test_disentangled_scores_add_contents_and_positions():
    layer = DisentangledAttention(D, HEADS, score_parts=3, initializer_range=0.5)
    found = layer(HIDDEN, attention_mask=PAIRS, positions=POSITIONS)

    def heads(dense, x):
        return np.asarray(dense(x)).reshape(*x.shape[:-1], HEADS, D // HEADS)

    query, key, value = (heads(part, HIDDEN) for part in (layer.query, layer.key, layer.value))
    table_key = heads(layer.position_key, POSITIONS[0])
    table_query = heads(layer.position_query, POSITIONS[0])
    mixed = np.zeros_like(query)
    for b, i, h in np.ndindex(B, L, HEADS):
        scores = np.zeros(L)  # a masked query has equal scores for all keys
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


def test_masked_queries_have_equal_weights_and_no_gradient():
    import tensorflow as tf

    layer = DisentangledAttention(D, HEADS, initializer_range=0.5)
    layer.build(HIDDEN.shape)
    with tf.GradientTape() as tape:
        found = layer(HIDDEN, attention_mask=PAIRS, positions=POSITIONS)
        loss = tf.reduce_sum(found[1, 3:] ** 2)
    mean = ops.mean(layer.value(HIDDEN[1]), axis=0, keepdims=True)
    expected = ops.broadcast_to(layer.output_dense(mean), (3, D))
    np.testing.assert_allclose(found[1, 3:], expected, atol=1e-5)
    score_kernels = [layer.query.kernel, layer.key.kernel, layer.position_key.kernel]
    for gradient in tape.gradient(loss, score_kernels):
        np.testing.assert_array_equal(gradient, np.zeros((D, D)))


def test_a_convolution_is_limited_to_its_kernel_and_padding_is_zero():
    block = ConvolutionBlock(
        MultiHeadAttention(D, HEADS, name="attention"),
        FeedForward(4, D, name="feed_forward"),
        kernel_size=3,
        convolution_activation="sigmoid",  # not 0 at 0
        convolution_initializer_range=0.5,
    )
    mask = padding_mask(MASK) & window_mask(L, 0)
    before = np.asarray(block(HIDDEN, attention_mask=mask))
    np.testing.assert_array_equal(before[1, 3:], np.zeros((3, D)))
    changed = HIDDEN.copy()
    changed[0, 0] += 1.0
    moved = np.abs(np.asarray(block(changed, attention_mask=mask)) - before).max(axis=(0, 2)) > 1e-4
    assert moved.tolist() == [True, True, False, False, False, False]


def test_the_convolution_reads_the_input_of_the_block():
    """Without the output of the block itself, the result is the convolved input."""
    block = ConvolutionBlock(
        MultiHeadAttention(D, HEADS, name="attention"),
        FeedForward(4, D, name="feed_forward"),
        convolution_activation="linear",
        convolution_initializer_range=0.5,
    )
    block.build(HIDDEN.shape)
    block.feed_forward_norm.gamma.assign(np.zeros(D))
    kernel, bias = (ops.convert_to_numpy(w) for w in block.convolution.weights)
    padded = np.pad(HIDDEN, ((0, 0), (1, 1), (0, 0)))
    convolved = sum(padded[:, k : k + L] @ kernel[k] for k in range(3)) + bias
    expected = block.convolution_norm(convolved.astype("float32"))
    np.testing.assert_allclose(block(HIDDEN), expected, atol=1e-5)


def block_of(attention, block_class=EncoderBlock, **options):
    feed_forward = FeedForward(4, D, name="feed_forward")
    return block_class(attention, feed_forward, **options)


def mixing(**options):
    return MultiHeadAttention(D, HEADS, initializer_range=0.5, name="attention", **options)


def disentangled(**options):
    return DisentangledAttention(D, HEADS, initializer_range=0.5, name="attention", **options)


# For each name: functions that make a layer and the layer of its positions.
QUERIES = {
    "attention": (mixing, None),
    "attention with a bias": (mixing, lambda: RelativePositionBias(HEADS, initializer_range=0.5)),
    "rotary attention": (lambda: mixing(rotary=True, fused=True), lambda: RotaryPositions(4, 9.0)),
    "disentangled attention": (disentangled, lambda: RelativePositions(D, 4)),
    "disentangled attention in one Dense layer": (
        lambda: disentangled(fused=True, talking_heads=True),
        lambda: RelativePositions(D, 4),
    ),
    "block": (lambda: block_of(mixing()), None),
    "pre-LN block": (lambda: block_of(mixing(), norm_first=True), None),
    "rotary pre-LN block": (
        lambda: block_of(mixing(rotary=True), norm_first=True),
        lambda: RotaryPositions(2),
    ),
    "disentangled block": (lambda: block_of(disentangled()), lambda: RelativePositions(D, 4)),
    "block with a convolution": (lambda: block_of(mixing(), ConvolutionBlock), None),
}
MASKS = {
    "padding": padding_mask(MASK),
    "pairs": PAIRS,
    "causal": padding_mask(MASK) & causal_mask(L),
    "window": padding_mask(MASK) & window_mask(L, 1),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_that_is_a_part_of_its_context(name):
    """The first token, the last one and two in the middle have the values of the full result."""
    layer, positions = (make and make() for make in QUERIES[name])
    for mask in MASKS.values():
        inputs = {"attention_mask": mask, "positions": positions and positions(MASK)}
        full = np.asarray(layer(HIDDEN, **inputs))
        assert np.abs(full[:, :1] - full[:, 1:]).max(-1).min() > 1e-4 or mask is PAIRS
        for start, end in [(0, 1), (L - 1, L), (2, 4), (0, L)]:
            part = layer(HIDDEN[:, start:end], context=HIDDEN, start=start, **inputs)
            np.testing.assert_allclose(part, full[:, start:end], atol=2e-6)
        start = ops.convert_to_tensor(L - 1)  # as in a decoding loop
        part = layer(HIDDEN[:, -1:], context=HIDDEN, start=start, **inputs)
        np.testing.assert_allclose(part, full[:, -1:], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"norm_first": True}], ids=["post-LN", "pre-LN"])
def test_a_query_that_is_a_part_of_its_context_with_gradient_checkpointing(options):
    import tensorflow as tf

    block = block_of(mixing(), dropout=0.0, **options)
    inputs = {"context": HIDDEN, "attention_mask": MASKS["causal"], "start": 2, "training": True}
    gradients, outputs = [], []
    for block.gradient_checkpointing in (False, True):
        with tf.GradientTape() as tape:
            outputs.append(block(HIDDEN[:, 2:4], **inputs))
            loss = tf.reduce_sum(outputs[-1] ** 3)
        gradients.append(tape.gradient(loss, [v.value for v in block.trainable_variables]))
    np.testing.assert_allclose(*outputs, atol=1e-6)
    scale = max(np.abs(gradient).max() for gradient in gradients[0])
    for plain, rematerialized in zip(*gradients, strict=True):
        np.testing.assert_allclose(rematerialized, plain, rtol=1e-5, atol=1e-6 * scale)


def test_cross_attention():
    """Four queries attend to six keys with other features, compared with NumPy."""
    layer = mixing()
    context = RNG.normal(size=(B, L, 5)).astype("float32")
    found = layer(HIDDEN[:, :4], context, padding_mask(MASK))
    assert layer.key.kernel.shape == (5, D)

    def heads(x):
        return np.asarray(x).reshape(*x.shape[:-1], HEADS, D // HEADS)

    query, key, value = (
        heads(part)
        for part in (layer.query(HIDDEN[:, :4]), layer.key(context), layer.value(context))
    )
    scores = np.einsum("bqhf,bkhf->bhqk", query, key) / np.sqrt(D // HEADS)
    powers = np.exp(scores) * MASK[:, None, None, :]
    weights = powers / powers.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhf->bqhf", weights, value).reshape(B, 4, D)
    np.testing.assert_allclose(found, layer.output_dense(mixed), atol=1e-5)
    np.testing.assert_allclose(
        layer.weights_of(HIDDEN[:, :4], context, padding_mask(MASK)), weights, atol=1e-6
    )


def test_tokens_without_a_query_are_padding():
    for mask in MASKS.values():
        np.testing.assert_array_equal(seen_tokens(mask), MASK == 1)
