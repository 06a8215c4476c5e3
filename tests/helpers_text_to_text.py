"""A stand-in for an encoder-decoder: it writes what a table says instead of computing it."""

from pathlib import Path

import numpy as np
from helpers_models import ENGLISH

GERMAN = ["ein", "der", "guter", "schlechter", "Film", "war", "sehr", "Schauspieler", "und"]
PADDING, END, UNKNOWN, START = "<pad>", "</s>", "<unk>", "<start>"
WORDS = [PADDING, END, UNKNOWN, START, "translate:", "summarize:", *ENGLISH, *GERMAN]
T5_PARAMS = {
    "summarization": {"prefix": "summarize: ", "max_length": 6, "num_beams": 4},
    "translation_en_to_de": {"prefix": "translate: ", "max_length": 5},
}


def write_tokenizer(folder: Path, adds_end: bool = True) -> Path:
    """Writes a tokenizer whose tokens are whole words; like T5's, it adds an end to each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_end:
        words.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, WORDS.index(END))]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PADDING,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=24,
    ).save_pretrained(folder)
    return folder


def writer(tokenizer: Path, task: str = "translation", written: dict | None = None, **config):
    """A model whose `generate` returns the text that a table has for a source, or else the source.

    It records what it is asked: `asked` is a list of (sources as texts, options).

    Args:
        tokenizer: The folder from `write_tokenizer`.
        task: The name of its task.
        written: Texts by source, which is looked up with its prefix.
        **config: Further keys of the config.
    """
    import keras

    from finetune_tf import FineTuneModel
    from finetune_tf.model.model_info import ModelInfo

    class Writer(FineTuneModel):
        def generate(self, prompts, max_new_tokens=None, **options):
            decode, encode = self.tokenizer.decode, self.tokenizer
            sources = [decode(row, skip_special_tokens=True) for row in prompts]
            self.asked.append((sources, {"max_new_tokens": max_new_tokens, **options}))
            texts = [(written or {}).get(source, source) for source in sources]
            rows = [encode(text, add_special_tokens=False)["input_ids"] for text in texts]
            return [np.asarray(row[:max_new_tokens], "int32") for row in rows]

    ids = keras.Input((None,), dtype="int32", name="input_ids")
    hidden = keras.layers.Embedding(len(WORDS), 4, name="embeddings")(ids)
    logits = keras.layers.Dense(len(WORDS), name="lm_head")(hidden)
    model = Writer(inputs={"input_ids": ids}, outputs=logits, name="writer")
    model.info = ModelInfo(
        checkpoint="writer",
        tokenizer=str(tokenizer),
        task=task,
        labels=None,
        pooling=None,
        config={
            "model_type": "bert",
            "vocab_size": len(WORDS),
            "max_position_embeddings": 24,
            "decoder_start_token_id": WORDS.index(START),
            "is_encoder_decoder": True,
            **config,
        },
        head_layers=(),
    )
    model.asked = []
    return model


def write_t5(folder: Path, **config: object) -> Path:
    """Writes a random T5 with one block on each side and the tokenizer of `write_tokenizer`."""
    import keras

    import finetune_tf as ft
    from finetune_tf.messages import quiet

    content = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": len(WORDS),
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "pad_token_id": WORDS.index(PADDING),
        "eos_token_id": WORDS.index(END),
        "decoder_start_token_id": WORDS.index(PADDING),
        **config,
    }
    write_tokenizer(folder)
    with quiet():
        keras.utils.set_random_seed(0)
        ft.load(content, "text2text-generation").save_pretrained(folder)
    return folder
