r"""Store the tokens that PyTorch's `generate` gives for the small decoders of `make_families.py`.

In ``FAMILY/text-generation/generation.npz``: ``ids`` and ``mask`` of prompts of different lengths,
padded on the left, and for each name in `OPTIONS` the new tokens. It was run with Python 3.11,
transformers 5.24.0 and torch 2.13.0 on a CPU::

    pip install "transformers>=5" torch
    cd tests && python -m references.make_generation
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from references.generation_options import ENDS, NEW_TOKENS, OPTIONS, PADDING

HERE = Path(__file__).resolve().parent


def generated(model, ids: np.ndarray, mask: np.ndarray, new: int, **options) -> np.ndarray:
    """The new tokens of PyTorch's `generate`: (prompts · returned, new), filled with padding.

    Args:
        model: A causal language model of transformers.
        ids: (prompts, length), padded on the left.
        mask: (prompts, length), 1 for real tokens.
        new: How many tokens at most.
        **options: For `generate`.
    """
    import torch

    with torch.no_grad():
        tokens = model.generate(
            torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(mask).long(),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=PADDING,
            eos_token_id=list(ENDS),
            **options,
        ).numpy()[:, ids.shape[1] :]
    rows = np.full((len(tokens), new), PADDING, "int32")
    rows[:, : tokens.shape[1]] = tokens
    return rows


def prompts(vocab_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three prompts of different lengths: ids and mask (3, 6) int32, padded on the left."""
    random = np.random.default_rng(seed)
    mask = (np.arange(6) >= 6 - np.array([[6], [2], [4]])).astype("int32")
    ids = random.integers(8, vocab_size, mask.shape).astype("int32")
    return np.where(mask, ids, np.int32(PADDING)), mask


def main() -> None:
    """Write the tokens of every decoder."""
    from references.pytorch import DECODERS
    from transformers import AutoModelForCausalLM

    for seed, family in enumerate(DECODERS):
        folder = HERE / family / "text-generation"
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        ids, mask = prompts(model.config.vocab_size, seed)
        tokens = {
            name: generated(model, ids, mask, NEW_TOKENS, **options)
            for name, options in OPTIONS.items()
        }
        np.savez_compressed(folder / "generation.npz", ids=ids, mask=mask, **tokens)


if __name__ == "__main__":
    main()
