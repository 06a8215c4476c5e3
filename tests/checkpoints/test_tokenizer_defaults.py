"""Tokenizer settings that files do not define are reported; contradicting ones are errors."""

import importlib.util
import json
import os
from string import ascii_lowercase

import pytest
from helpers_models import ENGLISH, SPECIAL, write_checkpoint

import finetune_tf as ft
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.errors import CheckpointError, DataError, FinetuneError, MissingExtraError

UNCASED = [*SPECIAL, *ENGLISH]
CASED = [*SPECIAL, "the", "film", "Berlin", "Paris", "is", "good", "##s", "very", "bad"]
GERMAN = [*SPECIAL, "der", "film", "ist", "schön", "für", "über", "gut", "sehr"]
CHINESE_WORDS = [*SPECIAL, "电影", "好看", "电", "影", "好", "非常", "喜欢", "的"]


PIECES = {
    piece: i for i, piece in enumerate([*"afilmtheo", "fi", "fil", "film", "th", "the", "oh"])
}


def folder(path, model_type="bert", **files):
    """Writes a folder with a config.json and files; "__" in an argument's name is a dot."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name, content in files.items():
        file = path / name.replace("__", ".")
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(words):
    return "".join(f"{word}\n" for word in words)


def word_pieces(words=CASED, lower=False, **changes):
    """Returns the content of a tokenizer.json with a WordPiece vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return json.loads(tokenizer.to_str()) | changes


def byte_level():
    """Returns the content of a tokenizer.json with a byte-level BPE vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return json.loads(tokenizer.to_str())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (CASED, '{"do_lower_case": false}'),
        (GERMAN, '{"strip_accents": false}'),
        (CHINESE_WORDS, '{"tokenize_chinese_chars": false}'),
    ],
)
def test_a_vocabulary_that_contradicts_a_default(words, line, tmp_path):
    where = folder(tmp_path / "c", vocab__txt=lines(words))
    with pytest.raises(CheckpointError, match="contradicts the vocabulary") as caught:
        load_tokenizer(where)
    message = str(caught.value)
    assert f"Write into {where}/tokenizer_config.json: {line}" in message
    (where / "tokenizer_config.json").write_text(line)
    tokenizer = load_tokenizer(where)
    assert tokenizer.tokenize(" ".join(w for w in words if w.isalpha())).count("[UNK]") == 0


def test_defaults_are_reported_in_one_line(tmp_path, capsys):
    where = folder(tmp_path / "c", vocab__txt=lines(UNCASED))
    load_tokenizer(where)
    assert capsys.readouterr().out == (
        f"The tokenizer in {where} uses do_lower_case=True, tokenize_chinese_chars=True, defaults "
        "of transformers' BertTokenizer; tokenizer_config.json can override them.\n"
    )
    explicit = {"do_lower_case": True, "tokenize_chinese_chars": True}
    load_tokenizer(
        folder(tmp_path / "d", vocab__txt=lines(UNCASED), tokenizer_config__json=explicit)
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "mpnet"])
def test_tokenizer_json_has_priority_over_defaults(model_type, tmp_path, capsys):
    where = folder(tmp_path / "c", model_type, tokenizer__json=word_pieces(lower=False))
    tokenizer = load_tokenizer(where)
    assert tokenizer.tokenize("the Berlin film") == ["the", "Berlin", "film"]
    assert "uses do_lower_case=False of tokenizer.json" in capsys.readouterr().out
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert load_tokenizer(tmp_path / "saved").tokenize("Berlin") == ["Berlin"]
    assert capsys.readouterr().out == ""


def test_add_prefix_space_of_tokenizer_json(tmp_path, capsys):
    tokenizer = load_tokenizer(folder(tmp_path / "c", "roberta", tokenizer__json=byte_level()))
    assert tokenizer.tokenize("a") == ["Ġ", "a"]
    assert "uses add_prefix_space=True of tokenizer.json" in capsys.readouterr().out


def test_tokenizer_config_is_respected_with_a_warning(tmp_path):
    where = folder(
        tmp_path / "c", vocab__txt=lines(CASED), tokenizer_config__json={"do_lower_case": True}
    )
    with pytest.warns(UserWarning, match="files specify that; consider do_lower_case=False"):
        tokenizer = load_tokenizer(where)
    assert tokenizer.tokenize("the Berlin") == ["the", "[UNK]"]


@pytest.mark.parametrize(
    ("model_type", "files"),
    [
        ("roberta", {"tokenizer__json": word_pieces()}),
        ("deberta", {"tokenizer__json": word_pieces()}),
        ("bert", {"vocab__json": {"a": 0, "b": 1}}),
        ("bert", {"junk__model": b"junk\0\xff", "vocab__json": {"a": 0}}),
        ("electra", {"vocab__txt": lines(SPECIAL)}),
        ("roberta", {"vocab__json": PIECES, "merges__txt": "#version: 0.2\n"}),
        ("roberta", {"vocab__json": PIECES, "merges__txt": "#version: 0.2\nf i\n"}),
    ],
)
def test_a_tokenizer_that_does_not_match_its_vocabulary(model_type, files, tmp_path):
    with pytest.raises(CheckpointError, match="words of its own vocabulary to their token"):
        load_tokenizer(folder(tmp_path / "c", model_type, **files))


@pytest.mark.parametrize("content", [
    *("", "{", "[]", "3", "{}", "[" * 100_000, b"\xff\xfe\0", '{"version": "1.0"}'),
    '{"version": "1.0", "added_tokens": [], "model": {"type": "Other"}}',
    json.dumps(word_pieces()).replace('"the": 5', '"the": -5'),
    json.dumps(word_pieces()).replace('"vocab": {', '"vocab": 3, "v": {'),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_a_broken_tokenizer_json(content, kind, tmp_path):
    settings = {"tokenizer_class": kind}
    where = folder(tmp_path / "c", tokenizer__json=content, tokenizer_config__json=settings)
    with pytest.raises(CheckpointError, match=r"(is not valid JSON|must be a JSON|cannot be read)"):
        load_tokenizer(where)


@pytest.mark.parametrize(
    ("model_type", "files"),
    [
        ("bert", {"vocab__txt": b"\xff\xfe"}),
        ("bert", {"vocab__txt": ""}),
        ("bert", {"vocab__txt": "a\nb\nc\n"}),  # no token for unknown words
        ("bert", {"vocab__txt": lines(UNCASED), "tokenizer_config__json": "[]"}),
        ("bert", {"vocab__txt": lines(UNCASED), "tokenizer_config__json": {"tokenizer_class": 3}}),
        ("bert", {"vocab__txt": lines(UNCASED), "tokenizer_config__json": {"pad_token": {"a": 1}}}),
        ("bert", {"vocab__txt": lines(UNCASED), "tokenizer_config__json": {"padding_side": "up"}}),
        ("bert", {"vocab__txt": lines(UNCASED), "special_tokens_map__json": "[1]"}),
        ("roberta", {"vocab__json": {"a": 0}}),  # no merges
        ("roberta", {"vocab__json": ["a"], "merges__txt": "#version\n"}),
        ("roberta", {"vocab__json": {"a": 0}, "merges__txt": "#version\nq z\n"}),
        ("xlm-roberta", {"tokenizer__json": word_pieces()}),
        ("albert", {"tokenizer__json": word_pieces()}),
    ],
)
def test_other_broken_files(model_type, files, tmp_path):
    with pytest.raises(CheckpointError):
        load_tokenizer(folder(tmp_path / "c", model_type, **files))


@pytest.mark.parametrize("limit", ["long", -3, 0, True, float("inf")])
def test_invalid_model_max_length(limit, tmp_path):
    settings = {"model_max_length": limit}
    where = folder(tmp_path / "c", vocab__txt=lines(UNCASED), tokenizer_config__json=settings)
    with pytest.raises(CheckpointError):
        load_tokenizer(where)


def test_left_padding_is_reported(tmp_path, capsys):
    settings = {"padding_side": "left"}
    load_tokenizer(
        folder(tmp_path / "c", vocab__txt=lines(UNCASED), tokenizer_config__json=settings)
    )
    assert "pads on the left; batches of finetune_tf are padded on the right" in (
        capsys.readouterr().out
    )


def test_padding_token_that_differs_from_the_config(tmp_path, capsys):
    where = folder(tmp_path / "c", "roberta", tokenizer__json=byte_level())
    config = {"model_type": "roberta", "max_position_embeddings": 40, "pad_token_id": 1}
    load_tokenizer(where, config=config)
    with pytest.raises(CheckpointError, match="pads with '<pad>', id 1, but config.json has"):
        load_tokenizer(where, config=config | {"pad_token_id": 0})
    where = folder(tmp_path / "b", vocab__txt=lines(UNCASED))
    config = {"model_type": "bert", "max_position_embeddings": 40, "pad_token_id": 5}
    load_tokenizer(where, config=config)
    assert "but row 5 of the token embeddings is never trained" in capsys.readouterr().out


def test_an_unreadable_tokenizer_is_not_reported_as_missing(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "c")
    (source / "tokenizer.json").write_text("{")
    ft.load(source, labels=2).save_pretrained(tmp_path / "out")
    message = capsys.readouterr().out
    assert f"No tokenizer is saved: {source}/tokenizer.json is not valid JSON" in message


@pytest.mark.parametrize("where", ["text", "padding"])
def test_ids_beyond_the_embedding_table(where, tmp_path):
    source = write_checkpoint(tmp_path / "c")
    model = ft.load(source, labels=["bad", "good"])
    examples = ft.data.from_arrays(["the newest film", "a dull one"], ["good", "bad"])
    if where == "text":
        model.tokenizer.add_tokens(["newest"])
    else:
        model.tokenizer.add_special_tokens({"pad_token": "[FILL]"})
    for call in (
        lambda: examples.batches(model),
        lambda: ft.predict(model, examples.columns["text"]),
        lambda: ft.data.write_tokens([examples], model, tmp_path / "tokens"),
    ):
        with pytest.raises(DataError, match=r"table has 22 rows.*resize_token_embeddings"):
            call()
    model.resize_token_embeddings(len(model.tokenizer))
    assert len(ft.predict(model, examples.columns["text"])) == 2


def test_texts_with_lone_surrogates_are_refused(tiny_bert):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    with pytest.raises(FinetuneError, match=r"not valid Unicode.*lone surrogate"):
        model.tokenizer(["film", "a \ud800 film"])
    with pytest.raises(FinetuneError):
        ft.predict(model, ["a \ud800 film"])


@pytest.mark.parametrize(
    ("model_type", "name"),
    [("albert", "spiece.model"), ("deberta-v2", "spm.model"),
     ("xlm-roberta", "sentencepiece.bpe.model"), ("camembert", "sentencepiece.bpe.model")],
)  # fmt: skip
def test_sentencepiece_not_installed_or_file_damaged(model_type, name, tmp_path):
    where = folder(tmp_path / "c", model_type, **{name.replace(".", "__"): b"junk\0\xff" * 9})
    if importlib.util.find_spec("sentencepiece") is None:
        error, message = MissingExtraError, r"pip install 'finetune-tf\[sentencepiece\]'"
    else:
        error, message = CheckpointError, "is not a valid SentencePiece model"
    with pytest.raises(error, match=message) as caught:
        load_tokenizer(where)
    assert "tiktoken" not in str(caught.value)


def sentencepiece_folder(path, name="spm.model", **options):
    """Trains a small SentencePiece model; skips the test if the package is not installed."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    texts = [" ".join(ENGLISH[i % 7 :]) + " Berlin Paris" for i in range(300)]
    path.mkdir()
    (path / "corpus.txt").write_text("\n".join(texts))
    options = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2} | options
    trainer.train(
        input=str(path / "corpus.txt"),
        model_prefix=str(path / "made"),
        **{"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},
        **options,
    )
    (path / "made.model").rename(path / name)
    (path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    return path


def pieces(folder, text):
    """Returns the tokens of the sentencepiece package itself."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    return model.encode(text, out_type=str)


def test_a_sentencepiece_model_without_tokenizer_json(tmp_path):
    where = sentencepiece_folder(tmp_path / "c")
    expected = pieces(where, "the film was very good Berlin")
    assert load_tokenizer(where).tokenize("the film was very good Berlin") == expected


def test_a_sentencepiece_model_of_another_type(tmp_path):
    where = sentencepiece_folder(tmp_path / "c", model_type="bpe", vocab_size=90)
    with pytest.raises(CheckpointError, match="words of its own vocabulary to their token"):
        load_tokenizer(where)


def test_a_sentencepiece_model_without_capitals(tmp_path):
    where = sentencepiece_folder(tmp_path / "c", normalization_rule_name="nmt_nfkc_cf")
    with pytest.raises(CheckpointError, match=r'tokenizer_config.json: {"do_lower_case": true}'):
        load_tokenizer(where)
    (where / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert load_tokenizer(where).tokenize("Paris Berlin") == pieces(where, "Paris Berlin")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "tokenizer_config.json"])
def test_pipes_are_refused_without_waiting(name, tmp_path):
    where = folder(tmp_path / "c", vocab__txt=lines(UNCASED))
    (where / name).unlink(missing_ok=True)
    os.mkfifo(where / name)
    with pytest.raises(CheckpointError, match=f"{name} is a pipe, not a file"):
        load_tokenizer(where)


def test_defaults_that_a_tokenizer_does_not_store(tmp_path, capsys):
    words = ["<s>", "<pad>", "</s>", *UNCASED, "<mask>"]
    tokenizer = load_tokenizer(folder(tmp_path / "c", "mpnet", vocab__txt=lines(words)))
    assert tokenizer("The FILM")["input_ids"] == [0, words.index("the"), words.index("film"), 2]
    assert "uses do_lower_case=True, tokenize_chinese_chars=True, def" in capsys.readouterr().out


def test_the_sample_of_a_large_vocabulary_has_no_periodic_gaps(tmp_path):
    # Words of a letter and a pair of letters; every second word has a capital letter.
    pairs = [f"{a}{b}" for a in ascii_lowercase for b in ascii_lowercase]
    names = [f"q{pair}" if i % 2 else f"Q{pair}" for i, pair in enumerate(pairs)]
    path = folder(
        tmp_path / "c",
        vocab__txt=lines([*SPECIAL, *ascii_lowercase, *names, *(f"x{name}" for name in names)]),
    )
    with pytest.raises(CheckpointError, match="% of the words in the vocabulary"):
        load_tokenizer(path)


def test_tokenizer_files_of_another_model_type(tmp_path):
    names = {"vocab__json": {"<s>": 0, "a": 1}, "merges__txt": "#version: 0.2\n"}
    with pytest.raises(CheckpointError, match="no other file than tokenizer.json") as message:
        load_tokenizer(folder(tmp_path / "c", "modernbert", **names))
    assert "tiktoken" not in str(message.value)
