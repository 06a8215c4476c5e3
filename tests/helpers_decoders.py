"""A tiny random GPT-2 as a Hugging Face folder, whose tokens are whole words."""

import json
from pathlib import Path

import numpy as np
from helpers_models import ENGLISH

END, PADDING = "<end>", "<pad>"
WORDS = [PADDING, END, "<unk>", *ENGLISH]
SIZE, BLOCKS, POSITIONS = 12, 2, 24


def write_decoder(folder: Path, seed: int = 0, **config: object) -> Path:
    """Writes config.json, model.safetensors, a tokenizer and generation_config.json.

    Args:
        folder: Created if it does not exist.
        seed: Seed of the weights.
        **config: Further keys of config.json; without them there is no dropout.
    """
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PADDING, eos_token=END, unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": len(WORDS),
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

    add("wte.weight", len(WORDS), SIZE)
    add("wpe.weight", POSITIONS, SIZE)
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
