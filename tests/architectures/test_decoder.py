"""Decoder blocks: values against NumPy, and causality."""

import keras
import numpy as np
import pytest
from keras import ops

from finetune_tf.architectures import (
    CrossAttentionBlock,
    EncoderBlock,
    FeedForward,
    MultiHeadAttention,
    RelativePositionBias,
    RotaryPositions,
    rotary_block,
)
from finetune_tf.architectures.masks import causal_mask, padding_mask

B, L, M, D, HEADS = 2, 6, 4, 8, 2
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, L, D)).astype("float32")
MEMORY = RNG.normal(size=(B, M, 5)).astype("float32")
MEMORY_MASK = (np.arange(M) < [[4], [2]]).astype("int32")
CAUSAL = causal_mask(L)


def rotary(**options):
    options = {"initializer_range": 0.5, **options}
    block = rotary_block(hidden_size=D, num_heads=HEADS, intermediate_size=12, **options)
    inputs = {"positions": RotaryPositions(D // HEADS, 50.0)(HIDDEN[:, :, 0])}
    return randomize(block, inputs), inputs


def cross(**options):
    """A post-LN block with biases as in BART, here with the relative position bias of T5."""
    block = CrossAttentionBlock(
        MultiHeadAttention(D, HEADS, initializer_range=0.5, name="attention"),
        FeedForward(12, D, "relu", initializer_range=0.5, name="feed_forward"),
        MultiHeadAttention(D, HEADS, initializer_range=0.5, name="cross_attention"),
        layer_norm_eps=1e-5,
        **options,
    )
    positions = RelativePositionBias(HEADS, bidirectional=False, initializer_range=0.5)
    inputs = {
        "memory": MEMORY,
        "memory_mask": padding_mask(MEMORY_MASK),
        "positions": positions(HIDDEN[:, :, 0]),
    }
    return randomize(block, inputs), inputs


def randomize(block, inputs):
    """Changes the scales and biases of a block from 1 and 0 to random values."""
    block(HIDDEN, **inputs)
    rng = np.random.default_rng(1)
    for variable in block.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    return block


def dense(layer, x):
    kernel, *bias = (np.asarray(ops.convert_to_numpy(w), "float64") for w in layer.weights)
    return x @ kernel + (bias[0] if bias else 0)


def attention(layer, x, context, seen, bias=0.0, rotate=lambda heads: heads):
    def heads(x):
        return x.reshape(*x.shape[:-1], HEADS, D // HEADS).transpose(0, 2, 1, 3)

    query, key = rotate(heads(dense(layer.query, x))), rotate(heads(dense(layer.key, context)))
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(D // HEADS) + bias
    powers = np.where(seen, np.exp(scores), 0)
    mixed = powers / powers.sum(-1, keepdims=True) @ heads(dense(layer.value, context))
    return dense(layer.output_dense, mixed.transpose(0, 2, 1, 3).reshape(x.shape))


def rms(layer, x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(layer.gamma)


def layer_norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.gamma) + np.asarray(layer.beta)


def rotated(x):
    """Rotates pairs of features (f, f + F/2), written as complex numbers, by their position."""
    half = x.shape[-1] // 2
    angles = np.arange(L)[:, None] * 50.0 ** (-np.arange(half) / half)
    complex_ones = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([complex_ones.real, complex_ones.imag], axis=-1)


def numpy_rotary(block, inputs):
    x = HIDDEN.astype("float64")
    normed = rms(block.attention_norm, x)
    x = x + attention(block.attention, normed, normed, np.tri(L) == 1, rotate=rotated)
    normed = rms(block.feed_forward_norm, x)
    feed_forward = block.feed_forward
    inner = dense(feed_forward.intermediate, normed)
    inner = inner / (1 + np.exp(-inner)) * dense(feed_forward.gate, normed)
    return x + dense(feed_forward.output_dense, inner)


def numpy_cross(block, inputs):
    x, bias = HIDDEN.astype("float64"), np.asarray(inputs["positions"])
    found = attention(block.attention, x, x, np.tri(L) == 1, bias)
    x = layer_norm(block.attention_norm, x + found)
    found = attention(block.cross_attention, x, MEMORY, MEMORY_MASK[:, None, None, :] == 1)
    x = layer_norm(block.cross_attention_norm, x + found)
    inner = np.maximum(dense(block.feed_forward.intermediate, x), 0)
    return layer_norm(block.feed_forward_norm, x + dense(block.feed_forward.output_dense, inner))


BLOCKS = {"rotary": (rotary, numpy_rotary), "cross-attention": (cross, numpy_cross)}


@pytest.mark.parametrize("name", BLOCKS)
def test_values_against_numpy(name):
    make, reference = BLOCKS[name]
    block, inputs = make()
    found = block(HIDDEN, attention_mask=CAUSAL, **inputs)
    np.testing.assert_allclose(found, reference(block, inputs), atol=2e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_token_depends_on_a_later_one(name):
    block, inputs = BLOCKS[name][0]()
    before = np.asarray(block(HIDDEN, attention_mask=CAUSAL, **inputs))
    for position in range(L):
        changed = HIDDEN.copy()
        changed[:, position:] += RNG.normal(size=changed[:, position:].shape)
        after = np.asarray(block(changed, attention_mask=CAUSAL, **inputs))
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        assert np.abs(after[:, position] - before[:, position]).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"norm_first": True}], ids=["default", "pre-LN"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_query_that_is_a_part_of_its_context(name, options):
    """The first token, and the newest token of a growing text, as in generation."""
    block, inputs = BLOCKS[name][0](**options)
    inputs["attention_mask"] = CAUSAL
    full = np.asarray(block(HIDDEN, **inputs))
    first = block(HIDDEN[:, :1], context=HIDDEN, **inputs)
    np.testing.assert_allclose(first, full[:, :1], atol=1e-5)
    for i in range(L):
        newest = block(HIDDEN[:, i : i + 1], context=HIDDEN, start=i, **inputs)
        np.testing.assert_allclose(newest, full[:, i : i + 1], atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradient_checkpointing_changes_nothing(name):
    block, inputs = BLOCKS[name][0](dropout=0.0)
    inputs |= {"attention_mask": CAUSAL, "training": True}
    plain = block(HIDDEN, **inputs)
    block.gradient_checkpointing = True
    np.testing.assert_allclose(block(HIDDEN, **inputs), plain, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_file_restores_the_cross_attention(tmp_path):
    block, inputs = cross(name="block_0")
    hidden, memory = keras.Input((None, D)), keras.Input((None, 5))
    model = keras.Model([hidden, memory], block(hidden, memory))
    model.save(tmp_path / "block.keras")
    again = keras.saving.load_model(tmp_path / "block.keras")
    inputs = [HIDDEN, MEMORY]
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert [v.path for v in again.weights] == [v.path for v in model.weights]
    assert again.layers[-1].get_config() == block.get_config()


def test_rotary_tables_reach_the_attention_in_float32_under_bfloat16():
    """Keras would cast them, and the angles of late positions would lose precision."""

    class Recording(MultiHeadAttention):
        def _compute_weights(self, query, key, attention_mask, positions, *others):
            self.seen = positions
            return super()._compute_weights(query, key, attention_mask, positions, *others)

    attention = Recording(D, HEADS, rotary=True, dtype="mixed_bfloat16", name="attention")
    feed_forward = FeedForward(12, D, dtype="mixed_bfloat16", name="feed_forward")
    block = EncoderBlock(attention, feed_forward, dtype="mixed_bfloat16")
    table = RotaryPositions(D // HEADS)(HIDDEN[:, :, 0])
    assert block(HIDDEN, positions=table).dtype == "bfloat16"
    np.testing.assert_array_equal(attention.seen, table)


@pytest.mark.slow
def test_the_rotary_block_against_pytorch():
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=D,
        num_attention_heads=HEADS,
        intermediate_size=12,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        attn_implementation="eager",
    )
    block, inputs = rotary()
    assert isinstance(block, EncoderBlock)
    layer = LlamaDecoderLayer(config, 0).eval()
    parts = {
        "self_attn.q_proj": block.attention.query,
        "self_attn.k_proj": block.attention.key,
        "self_attn.v_proj": block.attention.value,
        "self_attn.o_proj": block.attention.output_dense,
        "mlp.gate_proj": block.feed_forward.intermediate,
        "mlp.up_proj": block.feed_forward.gate,
        "mlp.down_proj": block.feed_forward.output_dense,
        "input_layernorm": block.attention_norm,
        "post_attention_layernorm": block.feed_forward_norm,
    }
    state = {
        f"{name}.weight": torch.tensor(ops.convert_to_numpy(part.weights[0]).T)
        for name, part in parts.items()
    }
    layer.load_state_dict(state)
    hidden = torch.tensor(HIDDEN)
    angles = LlamaRotaryEmbedding(config)(hidden, torch.arange(L)[None])
    mask = torch.full((L, L), torch.finfo(torch.float32).min).triu(1)[None, None]
    torch_output = layer(hidden, attention_mask=mask, position_embeddings=angles)
    torch_output = torch_output[0] if isinstance(torch_output, tuple) else torch_output
    found = block(HIDDEN, attention_mask=CAUSAL, **inputs)
    np.testing.assert_allclose(found, torch_output.detach(), atol=1e-5)
