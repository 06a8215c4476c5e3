"""A tiny random GPT-2 as a Hugging Face folder, whose tokens are whole words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from helpers_models import ENGLISH

END, PADDING = "<end>", "<pad>"
WORDS = [PADDING, END, "<unk>", *ENGLISH]
SIZE, BLOCKS, POSITIONS = 12, 2, 24


def word_tokenizer() -> Any:
    """Returns a tokenizer whose tokens are whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PADDING, eos_token=END, unk_token="<unk>"
    )


def byte_tokenizer() -> Any:
    """Returns a byte-level tokenizer as GPT-2's, with a few tokens of several bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("o", "p"),
        ("op", "e"),
        ("Ã", "©"),
        ("Ċ", "Ċ"),
    ]
    tokens = [PADDING, END, *letters, *("".join(pair) for pair in merges)]
    pairs = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token=PADDING, eos_token=END)


def sentencepiece_tokenizer() -> Any:
    """Returns a tokenizer with spaces in its tokens and tokens of single bytes, as Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<end>", "<unk>", "▁", "s", "t", "op", "▁stop", "▁a", "a", "b", "c", "d"]
    words += ["e", "f", "<0xC3>", "<0xA9>", "<0x0A>"]
    scores = [(word, -float(i)) for i, word in enumerate(words)]
    pieces = Tokenizer(models.Unigram(scores, 2, byte_fallback=True))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>", eos_token="<end>")


def write_decoder(
    folder: Path, seed: int = 0, tokenizer: Any | None = None, **config: object
) -> Path:
    """Writes config.json, model.safetensors, a tokenizer and generation_config.json.

    Args:
        folder: Created if it does not exist.
        seed: Seed of the weights.
        tokenizer: Whose first tokens are padding and the end; by default `word_tokenizer`.
        **config: Further keys of config.json; without them there is no dropout.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or word_tokenizer()
    tokenizer.save_pretrained(folder)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": len(tokenizer),
        "n_embd": SIZE,
        "n_layer": BLOCKS,
        "n_head": 3,
        "n_positions": POSITIONS,
        **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
        **ids,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(ids), encoding="utf-8")
    random, tensors = np.random.default_rng(seed), {}

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        tensors[f"transformer.{name}"] = random.normal(mean, 0.3, shape).astype("float32")

    add("wte.weight", len(tokenizer), SIZE)
    add("wpe.weight", content["n_positions"], SIZE)
    for norm in ("ln_f", *(f"h.{i}.ln_{j}" for i in range(BLOCKS) for j in (1, 2))):
        add(f"{norm}.weight", SIZE, mean=1.0)
        add(f"{norm}.bias", SIZE)
    sizes = {
        "attn.c_attn": (SIZE, 3 * SIZE),
        "attn.c_proj": (SIZE, SIZE),
        "mlp.c_fc": (SIZE, 4 * SIZE),
        "mlp.c_proj": (4 * SIZE, SIZE),
    }
    for i in range(BLOCKS):
        for module, shape in sizes.items():
            add(f"h.{i}.{module}.weight", *shape)
            add(f"h.{i}.{module}.bias", shape[1])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
