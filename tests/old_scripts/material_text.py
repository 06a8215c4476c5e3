"""What the scripts share that generate text: small random models, and pairs of sentences."""

import tempfile
from pathlib import Path

import keras
from helpers_decoders import write_decoder
from helpers_text_to_text import WORDS, write_t5, write_tokenizer

import finetune_tf as ft
from finetune_tf.messages import quiet

TF4 = Path(__file__).resolve().parents[1] / "fixtures" / "tf4"
FOLDER = Path(tempfile.mkdtemp())
GERMAN = {"a": "ein", "the": "der", "good": "guter", "bad": "schlechter", "film": "Film"}
GERMAN |= {"was": "war", "very": "sehr", "actor": "Schauspieler", "and": "und"}
SOURCES = [
    f"{start} {degree}{kind} {thing}"
    for start in ("a", "the")
    for degree in ("", "very ")
    for kind in ("good", "bad", "good and bad")
    for thing in ("film", "actor")
]
TARGETS = [" ".join(GERMAN[word] for word in source.split()) for source in SOURCES]
TEXTS = [f"{source} was {kind}" for source in SOURCES for kind in ("good", "bad", "very good")]


def _small(family: str) -> str:
    """Writes a random BART or Marian with one block on each side."""
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in SIZES}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    content = {
        **{"model_type": family, "vocab_size": len(WORDS), "d_model": 16, "dropout": 0.0},
        **{"max_position_embeddings": 24, "forced_eos_token_id": 1, "init_std": 0.2},
        **sides,
        **ids,
    }
    folder = write_tokenizer(FOLDER / family)
    with quiet():
        keras.utils.set_random_seed(0)
        ft.load(content, "text2text-generation").save_pretrained(folder)
    return str(folder)


SIZES = (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
GPT2 = str(write_decoder(FOLDER / "small-gpt2"))
T5 = str(write_t5(FOLDER / "small-t5"))
BART, MARIAN = _small("bart"), _small("marian")
