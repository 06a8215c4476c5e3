"""Trained models generate PyTorch's tokens, and texts that are right.

The weights and the data are not part of the project: `FINETUNE_TF_WEIGHTS` and `FINETUNE_TF_DATA`
name their folders. `bart_g2p` spells English words in phonemes, `pegasus_translit` writes Arabic in
Latin letters, `gpt_sort` sorts six digits, and `stories260K` tells stories. `FINETUNE_TF_SMOLLM2`
names the folder of SmolLM2-135M-Instruct with its tokenizer, weights in float32.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

import finetune_tf as ft

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("FINETUNE_TF_WEIGHTS", ROOT / "shared" / "weights"))
DATA = Path(os.environ.get("FINETUNE_TF_DATA", ROOT / "shared" / "data"))
SMOLLM2 = Path(os.environ.get("FINETUNE_TF_SMOLLM2", WEIGHTS / "smollm2"))
pytestmark = pytest.mark.slow
WAYS = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 4, "length_penalty": 1.5},
    "short beams": {"num_beams": 4, "length_penalty": 0.2, "early_stopping": True},
}
every_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)


def folder_of(name):
    """The folder of some weights; skips the test where there is none."""
    variable = "FINETUNE_TF_SMOLLM2" if WEIGHTS / name == SMOLLM2 else "FINETUNE_TF_WEIGHTS"
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"{variable}: no folder {WEIGHTS / name}")
    return WEIGHTS / name


@functools.cache
def model_of(name, task):
    with ft.messages.quiet():
        return ft.load(folder_of(name), task)


@functools.cache
def torch_model_of(name, kind):
    torch = pytest.importorskip("torch")
    import transformers

    torch.set_num_threads(1)  # more are slower for small models, above all beside TensorFlow's
    return getattr(transformers, kind).from_pretrained(folder_of(name)).eval()


def by_pytorch(model, rows, new, ends, **options):
    """The new tokens that PyTorch generates for each row alone, up to the end of the text."""
    import torch

    found = []
    for row in rows:
        ids = torch.tensor([row])
        options = {"do_sample": False, "max_new_tokens": new, **options}
        with torch.inference_mode():
            tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0]
        tokens = tokens[1 if model.config.is_encoder_decoder else len(row) :].tolist()
        end = min([i for i, token in enumerate(tokens) if token in ends], default=len(tokens))
        found.append(tokens[:end])
    return found


@functools.cache
def pronunciation():
    """The BART with its two tokenizers."""
    from transformers import AutoTokenizer

    model = model_of("bart_g2p", "text2text-generation")
    model.tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "bart_g2p" / "source")
    model.target_tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "bart_g2p" / "target")
    return model


@functools.cache
def words(part="test"):
    if not (DATA / "g2p").is_dir():
        pytest.skip(f"FINETUNE_TF_DATA: {DATA} has no folder g2p")
    return ft.data.from_jsonl(DATA / "g2p" / f"{part}.jsonl", source="word", target="phonemes")


@every_way
def test_phonemes_are_pytorchs(options):
    model = pronunciation()
    rows = model.tokenizer(words().columns["source"][:60])["input_ids"]
    found = model.generate(rows, 40, batch_size=20, **options)
    torch_model = torch_model_of("bart_g2p", "BartForConditionalGeneration")
    expected = by_pytorch(torch_model, rows, 40, ends=(2,), **options)
    assert [row.tolist() for row in found] == expected


def test_predictions_use_the_tokenizer_of_the_targets(tmp_path):
    model, test = pronunciation(), words()
    assert ft.predict(model, ["blotto", "gird"]) == ["blˈɑɾO", "ɡˈɜɹd"]
    encoded = test.encoded(model)
    ids = encoded.targets.rows[0].tolist()
    assert model.target_tokenizer.decode(ids, skip_special_tokens=True) == "blˈɑɾO"
    assert encoded.inputs["decoder_input_ids"].rows[0].tolist() == [1, *ids[:-1]]
    with ft.messages.quiet():
        again = ft.load(model.save_pretrained(tmp_path / "saved"), "text2text-generation")
        assert ft.predict(again, ["blotto"]) == ["blˈɑɾO"]


def test_as_many_words_are_right_as_in_pytorch():
    """PyTorch's class has 678 of the 1,000 test words right, greedily."""
    model, test = pronunciation(), words()
    found = ft.predict(model, test)
    right = sum(text == target for text, target in zip(found, test.columns["target"], strict=True))
    assert right == 678


@every_way
def test_transliterations_are_pytorchs(options):
    model = model_of("pegasus_translit", "text2text-generation")
    letters = (WEIGHTS / "pegasus_translit" / "source_vocabulary.txt").read_text().splitlines()
    names = ["سلام", "محمد", "كتاب", "مدرسة", "شمس", "قمر", "جميل", "حسن"]
    rows = [[letters.index(letter) for letter in name] for name in names]
    found = model.generate(rows, 20, **options)
    torch_model = torch_model_of("pegasus_translit", "PegasusForConditionalGeneration")
    expected = by_pytorch(torch_model, rows, 20, ends=(53,), **options)
    assert [row.tolist() for row in found] == expected


def test_a_transliteration_is_readable():
    model = model_of("pegasus_translit", "text2text-generation")
    folder = WEIGHTS / "pegasus_translit"
    letters = (folder / "source_vocabulary.txt").read_text().splitlines()
    latin = (folder / "target_vocabulary.txt").read_text().splitlines()
    (row,) = model.generate([[letters.index(letter) for letter in "آتزمون"]], 20)
    assert "".join(latin[token - 51] for token in row) == "atzmon"


def test_six_digits_are_sorted():
    model = model_of("gpt_sort", "text-generation")
    digits = np.random.default_rng(0).integers(0, 3, (300, 6))
    found = model.generate(list(digits), 5, batch_size=100)
    np.testing.assert_array_equal(found, np.sort(digits)[:, :5])


@every_way
def test_sorted_digits_are_pytorchs(options):
    model = model_of("gpt_sort", "text-generation")
    rows = np.random.default_rng(1).integers(0, 3, (20, 6)).tolist()
    found = model.generate(rows, 5, **options)
    torch_model = torch_model_of("gpt_sort", "GPT2LMHeadModel")
    expected = by_pytorch(torch_model, rows, 5, ends=(), pad_token_id=0, **options)
    assert [row.tolist() for row in found] == expected


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 4}], ids=["greedy", "beams"])
def test_texts_of_smollm2_are_pytorchs(options):
    """128 tokens of a language model of 135 million parameters, and an answer in a chat."""
    model = model_of(SMOLLM2, "text-generation")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    (answer,) = ft.generate(model, [question], max_new_tokens=20, **options)
    assert answer.strip() == "The capital of France is Paris."
    rows = model.tokenizer(["Once upon a time, there was a little"])["input_ids"]
    found = model.generate(rows, 128, **options)
    torch_model = torch_model_of(SMOLLM2, "LlamaForCausalLM")
    expected = by_pytorch(torch_model, rows, 128, ends=(2,), **options)
    assert [row.tolist() for row in found] == expected and len(expected[0]) > 100


def pieces():
    """The texts of the tokens of stories260K."""
    tokens = json.loads((WEIGHTS / "stories260K" / "tok512_pieces.json").read_text())
    return [token["piece"] for token in tokens]


@every_way
def test_stories_are_pytorchs(options):
    model = model_of("stories260K", "text-generation")
    random = np.random.default_rng(2)
    rows = [[1], *([1, *random.integers(3, 512, length)] for length in (3, 9, 20))]
    rows = [[int(token) for token in row] for row in rows]
    found = model.generate(rows, 128, **options)
    torch_model = torch_model_of("stories260K", "LlamaForCausalLM")
    expected = by_pytorch(torch_model, rows, 128, ends=(2,), pad_token_id=0, **options)
    assert [row.tolist() for row in found] == expected


def test_a_story_begins():
    model = model_of("stories260K", "text-generation")
    (row,) = model.generate([[1]], 40)
    text = "".join(pieces()[token] for token in row)
    assert "Once upon a time, there was a little girl named Lily" in text
