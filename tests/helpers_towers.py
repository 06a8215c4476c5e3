"""Folders of tiny random models of two towers, with a tokenizer that knows a few words."""

import shutil
from pathlib import Path

REFERENCES = Path(__file__).resolve().parent / "references"
FAMILIES = ("clip", "siglip", "vision-text-dual-encoder")
WORDS = ["a", "photo", "of", "red", "blue", "green", "square", "this", "is", "picture", "."]


def write_towers(folder: Path, family: str = "clip") -> Path:
    """Writes the stored reference of a family with a tokenizer of words.

    Args:
        folder: Is created.
        family: "clip" or "siglip", whose id 7 ends a text, or "vision-text-dual-encoder".
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(REFERENCES / family / "image-text-retrieval", folder)
    (folder / "expected.npz").unlink()
    names = ["<pad>", "<s>", "<unk>", "x3", "x4", "x5", "x6", "</s>", *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    start = "<s> " if family == "clip" else ""
    words.post_processor = processors.TemplateProcessing(
        single=f"{start}$A </s>",
        pair=f"{start}$A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 7)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=17,
        **({"model_input_names": ["input_ids"]} if family == "siglip" else {}),
    )
    tokenizer.save_pretrained(folder)
    return folder
