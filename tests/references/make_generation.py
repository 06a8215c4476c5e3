r"""Store the tokens that PyTorch's `generate` gives for the small models of `make_families.py`.

In ``FAMILY/TASK/generation.npz``: ``ids`` and ``mask`` of prompts of different lengths, padded on
the left, or of the sources of encoder-decoders, padded on the right, and for each name in `OPTIONS`
and `WITHOUT_WORDS` the new tokens and, as ``NAME scores``, the scores of the texts. Each prompt is
continued alone. It was run with Python 3.11, transformers 5.24.0 and torch 2.13.0 on a CPU::

    pip install "transformers>=5" torch
    cd tests && python -m references.make_generation
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from references.generation_options import (
    ENDS,
    NEW_TOKENS,
    OF_ONE_VOCABULARY,
    OPTIONS,
    PADDING,
    WITHOUT_WORDS,
    bad_words,
)

HERE = Path(__file__).resolve().parent


def generated(
    model, ids: np.ndarray, mask: np.ndarray, new: int, **options
) -> tuple[np.ndarray, np.ndarray]:
    """What PyTorch's `generate` gives for each prompt.

    Args:
        model: A causal language model or an encoder-decoder of transformers.
        ids: (prompts, length), padded on either side.
        mask: (prompts, length), 1 for real tokens.
        new: How many tokens at most.
        **options: For `generate`.

    Returns:
        The new tokens (prompts · returned, new), filled with padding, and the scores of the texts
        (prompts · returned,): those of beam search, or else sums of log-probabilities.
    """
    import torch

    rows, scores = [], []
    for prompt, is_real in zip(ids, mask, strict=True):
        prompt = torch.from_numpy(prompt[is_real == 1][None]).long()
        with torch.no_grad():
            found = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=PADDING,
                eos_token_id=list(ENDS),
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
        given = 1 if model.config.is_encoder_decoder else prompt.shape[1]
        tokens = found.sequences.numpy()[:, given:]
        rows += [np.pad(row, (0, new - len(row)), constant_values=PADDING) for row in tokens]
        if options.get("num_beams", 1) > 1:
            scores += found.sequences_scores.tolist()
        else:
            # As compute_transition_scores, which fails for Marian with two vocabularies.
            steps = zip(found.scores, tokens[0], strict=True)
            scores.append(sum(step.log_softmax(-1)[0, token].item() for step, token in steps))
    return np.array(rows, "int32"), np.array(scores, "float32")


def prompts(vocab_size: int, seed: int, on_left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Four prompts of different lengths: ids and mask (4, 6) int32, padded on the left or right."""
    random = np.random.default_rng(seed)
    lengths = np.array([[6], [2], [4], [1]])
    mask = np.arange(6) >= 6 - lengths if on_left else np.arange(6) < lengths
    mask = mask.astype("int32")
    ids = random.integers(8, vocab_size, mask.shape).astype("int32")
    return np.where(mask, ids, np.int32(PADDING)), mask


def main() -> None:
    """Write the tokens of every decoder and encoder-decoder."""
    from references.pytorch import DECODERS, ENCODER_DECODERS, TEXT_TO_TEXT
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    for seed, family in enumerate((*DECODERS, *ENCODER_DECODERS)):
        is_decoder = family in DECODERS
        folder = HERE / family / ("text-generation" if is_decoder else TEXT_TO_TEXT)
        kind = AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM
        model = kind.from_pretrained(folder, attn_implementation="eager").eval()
        ids, mask = prompts(model.config.vocab_size, seed, on_left=is_decoder)
        arrays = {"ids": ids, "mask": mask}

        def add(name, arrays=arrays, model=model, **options):
            found = generated(model, arrays["ids"], arrays["mask"], NEW_TOKENS, **options)
            arrays[name], arrays[f"{name} scores"] = found

        has_two_vocabularies = not getattr(model.config, "share_encoder_decoder_embeddings", True)
        for name, options in OPTIONS.items():
            if not (has_two_vocabularies and name in OF_ONE_VOCABULARY):
                add(name, **options)
        for name, (source, options) in WITHOUT_WORDS.items():
            add(name, bad_words_ids=bad_words(arrays[source]), **options)
        np.savez_compressed(folder / "generation.npz", **arrays)


if __name__ == "__main__":
    main()
