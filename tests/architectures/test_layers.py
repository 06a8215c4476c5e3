"""Every layer: its config, shapes, precision, and saving to a Keras file."""

import keras
import numpy as np
import pytest
from keras import ops

from finetune_tf import kernels
from finetune_tf.architectures import (
    AttentionMask,
    ClassificationHead,
    ConvolutionBlock,
    DisentangledAttention,
    Embeddings,
    EncoderBlock,
    FeedForward,
    L2Normalize,
    LayerNorm,
    MultiHeadAttention,
    Pooling,
    RelativePositionBias,
    RelativePositions,
    RotaryPositions,
    Transform,
    VocabularyBias,
    bert_block,
    encoder,
)
from finetune_tf.architectures.layers import FirstToken, RMSNorm
from finetune_tf.errors import ModelError

B, L, D = 3, 5, 12
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(B, L, D)).astype("float32")
IDS = RNG.integers(0, 9, (B, L))
TYPES = RNG.integers(0, 2, (B, L))
DISTANCES = RNG.normal(size=(1, 2 * L + 1, D)).astype("float32")
MASK = (np.arange(L) < [[5], [3], [1]]).astype("int32")
SEEN = MASK[:, None, None, :] == 1
PAIRS = SEEN & (MASK[:, None, :, None] == 1)
ANGLES = RNG.uniform(-1, 1, (1, L, 4)).astype("float32")

# For each layer: a function that makes it (with any dtype), its inputs, and its output shape.
LAYERS = {
    "embeddings": (
        lambda **k: Embeddings(9, D, 7, 2, 0.1, 1e-5, 0.3, **k),
        (IDS, TYPES),
        (B, L, D),
    ),
    "embeddings that skip padding, projected": (
        lambda **k: Embeddings(
            9, D, 7, 2, 0.1, 1e-5, 0.3, 1, True, embedding_size=5, project="after", **k
        ),
        (IDS, TYPES),
        (B, L, D),
    ),
    "block": (
        lambda **k: EncoderBlock(
            MultiHeadAttention(D, 3, 0.2, dtype=k.get("dtype"), name="attention"),
            FeedForward(8, D, "relu", dtype=k.get("dtype"), name="feed_forward"),
            **k,
        ),
        (HIDDEN, HIDDEN, SEEN),
        (B, L, D),
    ),
    "pre-LN block": (
        lambda **k: EncoderBlock(
            MultiHeadAttention(D, 3, dtype=k.get("dtype"), name="attention"),
            FeedForward(8, D, gated="second_half", dtype=k.get("dtype"), name="feed_forward"),
            norm_first=True,
            norm_bias=False,
            has_attention_norm=False,
            **k,
        ),
        (HIDDEN, HIDDEN, SEEN),
        (B, L, D),
    ),
    "attention": (
        lambda **k: MultiHeadAttention(D, 4, 0.1, 0.3, **k),
        (HIDDEN, HIDDEN, SEEN),
        (B, L, D),
    ),
    "cross-attention": (
        lambda **k: MultiHeadAttention(D, 4, 0.1, **k),
        (HIDDEN[:, :2], HIDDEN, SEEN),
        (B, 2, D),
    ),
    "rotary attention": (
        lambda **k: MultiHeadAttention(D, 3, fused=True, rotary=True, **k),
        (HIDDEN, HIDDEN, SEEN, ANGLES),
        (B, L, D),
    ),
    "disentangled attention": (
        lambda **k: DisentangledAttention(D, 3, dropout=0.1, position_dropout=0.2, **k),
        (HIDDEN, HIDDEN, PAIRS, DISTANCES),
        (B, L, D),
    ),
    "disentangled attention of the first DeBERTa": (
        lambda **k: DisentangledAttention(
            D, 3, position_to_content=False, score_parts=2, fused=True, talking_heads=True, **k
        ),
        (HIDDEN, HIDDEN, PAIRS, DISTANCES),
        (B, L, D),
    ),
    "disentangled attention that shares projections": (
        lambda **k: DisentangledAttention(D, 3, share_projections=True, **k),
        (HIDDEN, HIDDEN, PAIRS, DISTANCES),
        (B, L, D),
    ),
    "block with a convolution": (
        lambda **k: ConvolutionBlock(
            MultiHeadAttention(D, 3, dtype=k.get("dtype"), name="attention"),
            FeedForward(8, D, dtype=k.get("dtype"), name="feed_forward"),
            kernel_size=5,
            groups=2,
            convolution_activation="gelu",
            **k,
        ),
        (HIDDEN, HIDDEN, PAIRS),
        (B, L, D),
    ),
    "relative positions": (lambda **k: RelativePositions(D, 3, **k), (IDS,), (1, 2 * L + 1, D)),
    "relative positions in buckets": (
        lambda **k: RelativePositions(D, 9, 4, 1e-3, **k),
        (IDS,),
        (1, 2 * L + 1, D),
    ),
    "position bias": (lambda **k: RelativePositionBias(3, **k), (IDS,), (1, 3, L, L)),
    "rotary positions": (lambda **k: RotaryPositions(4, 100.0, **k), (IDS,), (1, L, 4)),
    "mask": (lambda **k: AttentionMask(**k), (MASK,), (B, 1, 1, L)),
    "mask of pairs": (lambda **k: AttentionMask(window=2, **k), (MASK,), (B, 1, L, L)),
    "first token": (lambda **k: FirstToken(**k), (HIDDEN,), (B, 1, D)),
    "feed_forward": (lambda **k: FeedForward(6, D, "gelu_new", 0.3, **k), (HIDDEN,), (B, L, D)),
    "feed_forward with a gate": (
        lambda **k: FeedForward(6, D, "silu", gated="apart", use_bias=False, output_bias=True, **k),
        (HIDDEN,),
        (B, L, D),
    ),
    "feed_forward with a gate in the first half": (
        lambda **k: FeedForward(6, D, gated="first_half", **k),
        (HIDDEN,),
        (B, L, D),
    ),
    "rms_norm": (lambda **k: RMSNorm(1e-3, **k), (HIDDEN,), (B, L, D)),
    "layer_norm": (lambda **k: LayerNorm(1e-3, **k), (HIDDEN,), (B, L, D)),
    "mean": (lambda **k: Pooling("mean", **k), (HIDDEN, MASK), (B, D)),
    "cls": (lambda **k: Pooling("cls", **k), (HIDDEN, MASK), (B, D)),
    "pooler": (lambda **k: Transform(7, "tanh", 0.3, **k), (HIDDEN[:, 0],), (B, 7)),
    "transform": (lambda **k: Transform(7, "gelu", layer_norm_eps=1e-5, **k), (HIDDEN,), (B, L, 7)),
    "head": (lambda **k: ClassificationHead(4, 0.1, 0.3, **k), (HIDDEN[:, 0],), (B, 4)),
    "head for spans": (
        lambda **k: ClassificationHead(2, per_label=True, **k),
        (HIDDEN,),
        (B, 2, L),
    ),
    "unit length": (lambda **k: L2Normalize(**k), (HIDDEN[:, 0],), (B, D)),
    "vocabulary bias": (lambda **k: VocabularyBias(**k), (HIDDEN,), (B, L, D)),
}


def symbolic(inputs):
    """Makes symbolic inputs of unknown batch size and length."""
    return [
        keras.Input((None,) * (x.ndim - 2) + x.shape[-1:], dtype="float32")
        if x.dtype.kind == "f"
        else keras.Input((1, x.shape[2] if x.shape[2] == 1 else None, None), dtype="bool")
        if x.dtype.kind == "b"
        else keras.Input((None,), dtype="int32")
        for x in inputs
    ]


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def test_config_round_trip(case):
    make, inputs, _ = case
    layer = make(name="some")
    layer(*inputs)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again(*inputs)
    assert [w.path for w in again.weights] == [w.path for w in layer.weights]
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(*inputs), layer(*inputs))


def test_symbolic_and_eager_shapes_agree(case):
    make, inputs, shape = case
    layer = make()
    open_shape = layer(*symbolic(inputs)).shape
    assert len(open_shape) == len(shape)
    assert all(found in (None, wanted) for found, wanted in zip(open_shape, shape, strict=True))
    assert layer(*inputs).shape == shape
    assert tuple(layer.compute_output_spec(*symbolic(inputs)).shape) == open_shape


# Keras reads variables in a way that NumPy 2 has deprecated.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_file_restores_it(case, tmp_path):
    make, inputs, _ = case
    tensors = symbolic(inputs)
    model = keras.Model(tensors, make()(*tensors))
    model.save(tmp_path / "layer.keras")
    again = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(again(list(inputs)), model(list(inputs)))


def test_bfloat16_is_close_to_float32_and_has_float32_weights(case):
    make, inputs, _ = case
    full, mixed = make(), make(dtype="mixed_bfloat16")
    expected = full(*inputs)
    mixed(*inputs)
    if isinstance(mixed, AttentionMask):
        return np.testing.assert_array_equal(mixed(*inputs), expected)
    mixed.set_weights(full.get_weights())
    found = mixed(*inputs)
    float32_layers = (ClassificationHead, RotaryPositions, L2Normalize, VocabularyBias)
    assert found.dtype == ("float32" if isinstance(mixed, float32_layers) else "bfloat16")
    assert {weight.dtype for weight in mixed.weights} <= {"float32"}
    np.testing.assert_allclose(ops.cast(found, "float32"), expected, rtol=0.02, atol=0.03)


def test_a_block_of_an_older_version_is_refused():
    make, _, _ = LAYERS["block"]
    config = make().get_config()
    del config["rms_norm"]
    with pytest.raises(ModelError, match="saved by an older version of finetune_tf, whose blocks"):
        EncoderBlock.from_config(config)


def test_layer_norm_uses_float32_weights_under_bfloat16(monkeypatch):
    """In bfloat16 copies, which autocast would make, 1.001 and 1.0 are equal."""
    seen = []
    monkeypatch.setattr(
        kernels, "layer_norm", lambda x, gamma, beta, _: seen.extend([x, gamma, beta]) or x
    )
    LayerNorm(dtype="mixed_bfloat16")(HIDDEN)
    dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in seen[-3:]]
    assert dtypes == ["bfloat16", "float32", "float32"]


def test_pooling_ignores_padding():
    mean = Pooling("mean")(HIDDEN, MASK)
    expected = [HIDDEN[row, : MASK[row].sum()].mean(axis=0) for row in range(B)]
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_array_equal(Pooling("cls")(HIDDEN, MASK), HIDDEN[:, 0])
    assert np.isfinite(Pooling("mean")(HIDDEN, np.zeros_like(MASK))).all()
    with pytest.raises(ModelError, match="mode has to be 'cls' or 'mean', found 'max'"):
        Pooling("max")


def test_the_encoder_is_a_chain_of_named_stages():
    block = {
        "hidden_size": D,
        "num_heads": 3,
        "intermediate_size": 8,
        "activation": "gelu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "dtype": "float32",
    }
    blocks = [bert_block(**block, name=f"block_{i}") for i in range(2)]
    backbone = encoder(Embeddings(9, D, 7, 2, name="embeddings"), blocks)
    model = keras.Model(backbone.inputs, backbone.hidden)
    names = [layer.name for layer in model.layers if layer.weights]
    assert names == ["embeddings", "block_0", "block_1"]
    assert backbone.hidden.shape == (None, None, D)
    assert backbone.first_token.shape == (None, 1, D)
    assert set(backbone.inputs) == {"input_ids", "token_type_ids", "attention_mask"}
    assert np.asarray(model.get_layer("block_1").feed_forward.intermediate.kernel).std() < 0.03
    found = model({"input_ids": IDS, "token_type_ids": TYPES, "attention_mask": MASK})
    assert found.shape == (B, L, D)
    pooled = keras.Model(backbone.inputs, backbone.pooled("cls", None))
    inputs = {"input_ids": IDS, "token_type_ids": TYPES, "attention_mask": MASK}
    np.testing.assert_allclose(pooled(inputs), found[:, 0], atol=1e-6)
