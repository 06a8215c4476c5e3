"""Tasks from text to text: what encoder and decoder read, prefixes, predictions, and errors."""

import json

import numpy as np
import pytest
from helpers_text_to_text import START, T5_PARAMS, WORDS, write_tokenizer, writer

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, CheckpointError, DataError, ModelError
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED, TASKS

SOURCES = ["a good film", "the actor was very bad"]
TARGETS = ["ein guter Film", "der Schauspieler war sehr schlechter"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizers") / "words")


@pytest.fixture
def pairs():
    return ft.data.from_arrays(source=SOURCES, target=TARGETS)


def words(ids):
    return " ".join(WORDS[i] if i != IGNORED else "-" for i in np.asarray(ids).tolist())


def test_the_decoder_reads_the_target_one_token_late(tokenizer, pairs):
    encoded = pairs.encoded(writer(tokenizer))
    assert words(encoded.inputs["input_ids"][0]) == "a good film </s>"
    assert words(encoded.inputs["decoder_input_ids"][0]) == "<start> ein guter Film"
    assert words(encoded.targets[0]) == "ein guter Film </s>"
    assert encoded.inputs["decoder_input_ids"].axis == encoded.targets.axis == "target_tokens"


def test_batches_pad_both_texts(tokenizer, pairs):
    from finetune_tf.data.batching import bucketed_dataset

    encoded = pairs.encoded(writer(tokenizer))
    dataset = bucketed_dataset(
        encoded.inputs, encoded.targets, 2, {"tokens": [6], "target_tokens": [6]}
    )
    inputs, targets = next(iter(dataset))
    assert words(inputs["input_ids"][0]) == "a good film </s> <pad> <pad>"
    assert words(inputs["decoder_input_ids"][0]) == "<start> ein guter Film <pad> <pad>"
    assert words(targets[0]) == "ein guter Film </s> - -"
    assert inputs["decoder_attention_mask"][0].numpy().tolist() == [1, 1, 1, 1, 0, 0]


def test_the_first_reference_is_learned_and_all_are_references(tokenizer):
    examples = ft.data.from_arrays(source=SOURCES[:1], target=[["ein Film", "der Film"]])
    model = writer(tokenizer)
    assert words(examples.encoded(model).targets[0]) == "ein Film </s>"
    assert model.task.targets(examples) == [["ein Film", "der Film"]]


@pytest.mark.parametrize("adds_end", [True, False])
def test_truncated_targets_keep_their_end(tmp_path, pairs, adds_end, capsys):
    folder = write_tokenizer(tmp_path / "words", adds_end)
    model = writer(folder)
    encoded = pairs.encoded(model, max_length=5, max_target_length=4)
    assert words(encoded.targets[0]) == "ein guter Film </s>"
    assert words(encoded.targets[1]) == "der Schauspieler war </s>"
    assert words(encoded.inputs["decoder_input_ids"][1]) == "<start> der Schauspieler war"
    expected = "the actor was very </s>" if adds_end else "the actor was very bad"
    assert words(encoded.inputs["input_ids"][1]) == expected
    assert encoded.truncated == (1 if adds_end else 0)
    assert "1 of 2 targets are longer than 4 tokens and lose their end." in capsys.readouterr().out


def test_rows_without_targets_have_only_sources(tokenizer):
    encoded = ft.data.from_arrays(source=SOURCES).encoded(writer(tokenizer))
    assert list(encoded.inputs) == ["input_ids"] and encoded.targets is None


class TestPrefix:
    def test_it_comes_from_the_config(self, tokenizer, pairs):
        model = writer(tokenizer, "summarization", task_specific_params=T5_PARAMS)
        assert words(pairs.encoded(model).inputs["input_ids"][0]) == "summarize: a good film </s>"
        model = writer(tokenizer, "translation", task_specific_params=T5_PARAMS)
        assert words(pairs.encoded(model).inputs["input_ids"][0]) == "translate: a good film </s>"
        model = writer(tokenizer, "text2text-generation", task_specific_params=T5_PARAMS)
        assert words(pairs.encoded(model).inputs["input_ids"][0]) == "a good film </s>"
        model = writer(tokenizer, "text2text-generation", prefix="summarize: ")
        assert words(pairs.encoded(model).inputs["input_ids"][0]) == "summarize: a good film </s>"

    def test_a_prefix_that_is_in_the_texts_already(self, tokenizer):
        examples = ft.data.from_arrays(source=["summarize: a film", "a good film"], name="news")
        model = writer(tokenizer, "summarization", task_specific_params=T5_PARAMS)
        with pytest.warns(UserWarning) as caught:
            encoded = examples.encoded(model)
        assert words(encoded.inputs["input_ids"][0]) == "summarize: summarize: a film </s>"
        assert str(caught[0].message) == (
            "news: 1 of 2 texts begin with the prefix 'summarize: ', which is put in front of each "
            "text, so that they have it twice. Remove it from the texts, or train without it: "
            'batches(model, prefix="").'
        )
        with pytest.warns(UserWarning, match="prompts: 1 of 1 texts begin with the prefix"):
            ft.generate(model, "summarize: a film")
        with quiet():
            examples.encoded(model, prefix="")

    def test_the_prefix_of_training_is_that_of_predictions(self, tokenizer, pairs, capsys):
        model = writer(tokenizer, "text2text-generation")
        pairs.encoded(model, prefix="summarize: ")
        assert "records prefix 'summarize: ' for text2text-generation" in capsys.readouterr().out
        assert ft.predict(model, "a film") == "summarize: a film"
        assert json.loads(model.config.to_json_string())["task_specific_params"] == {
            "text2text-generation": {"prefix": "summarize: "}
        }
        pairs.encoded(model)
        assert capsys.readouterr().out == ""  # nothing has changed
        pairs.encoded(model, prefix="")
        assert ft.predict(model, "a film") == "a film"

    def test_a_pair_of_languages_chooses_one(self, tokenizer, pairs):
        params = {**T5_PARAMS, "translation_en_to_fr": {"prefix": "French: "}}
        model = writer(tokenizer, task_specific_params=params)
        with pytest.raises(ModelError) as error:
            pairs.encoded(model)
        assert "a prefix for each of translation_en_to_de, translation_en_to_fr." in str(
            error.value
        )
        assert 'batches(model, languages=("en", "de"))' in str(error.value)
        with pytest.raises(ModelError, match="has no translation_de_to_en; it has translation_en_"):
            pairs.encoded(model, languages=("de", "en"))
        with quiet():
            pairs.encoded(model, languages=("en", "de"))
        assert ft.predict(model, ["a film"]) == ["translate: a film"]
        assert params.keys() < model.config["task_specific_params"].keys()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"languages": "en"}, "takes two codes"),
            ({"languages": ("en", "de"), "prefix": ""}, "either languages= or prefix="),
            ({"prefix": 3}, "prefix= is a text"),
        ],
    )
    def test_wrong_options(self, tokenizer, pairs, options, message):
        with pytest.raises(ModelError, match=message):
            pairs.encoded(writer(tokenizer, task_specific_params=T5_PARAMS), **options)
        with pytest.raises(ArgumentError, match="max_target_length must be an integer >= 1"):
            pairs.encoded(writer(tokenizer), max_target_length=0)
        with pytest.raises(DataError, match="summarization has no option languages; it has prefix"):
            pairs.encoded(writer(tokenizer, "summarization"), languages=("en", "de"))

    @pytest.mark.parametrize("params", [[], {"translation": 3}, {"translation": {"prefix": 1}}])
    def test_damaged_configs(self, tokenizer, pairs, params):
        if params == []:
            pairs.encoded(writer(tokenizer, task_specific_params=params))  # like a missing key
            params = [1]
        with pytest.raises(CheckpointError, match=r"in config.json must be an object"):
            pairs.encoded(writer(tokenizer, task_specific_params=params))


class TestPredictions:
    def test_one_text_and_several(self, tokenizer):
        model = writer(tokenizer, written={"a good film": "ein guter Film"})
        assert ft.predict(model, "a good film") == "ein guter Film"
        assert ft.predict(model, ["a good film", "bad"], batch_size=3) == ["ein guter Film", "bad"]
        assert ft.predict(model, source=["bad"]) == ["bad"]
        assert model.asked[1][1] == {"max_new_tokens": 23, "batch_size": 3}

    def test_examples_lose_their_targets(self, tokenizer, pairs):
        assert ft.predict(writer(tokenizer), pairs) == SOURCES

    def test_the_length_of_the_config_limits_them(self, tokenizer, capsys):
        model = writer(tokenizer, "summarization", task_specific_params=T5_PARAMS)
        ft.predict(model, ["a very good film and a dull story"])
        assert model.asked[0][1]["max_new_tokens"] == 6
        assert "1 of 1 predictions have 6 tokens, the most that" in capsys.readouterr().out
        model.info.generation["max_new_tokens"] = 20  # generation_config.json decides, if it does
        ft.predict(model, "a film")
        assert model.asked[1][1]["max_new_tokens"] is None

    @pytest.mark.parametrize(
        ("task", "key"),
        [
            ("text2text-generation", "generated_text"),
            ("translation", "translation_text"),
            ("summarization", "summary_text"),
        ],
    )
    def test_json(self, task, key):
        assert TASKS[task]().as_json("ein Film") == {key: "ein Film"}


class TestErrors:
    def test_columns(self, tokenizer):
        texts = ft.data.from_arrays(["a film"], name="films")
        with pytest.raises(ModelError) as error:
            texts.encoded(writer(tokenizer))
        assert str(error.value) == (
            "The task translation reads the columns source and target (to predict, source alone), "
            "but films has text. Name them when reading it, for example from_jsonl(path, "
            'source="en", target="de").'
        )
        with pytest.raises(DataError, match="has no target, so nothing can be measured on it"):
            ft.evaluate(writer(tokenizer), ft.data.from_arrays(source=SOURCES))
        with pytest.raises(DataError, match="expects sources, not pairs of texts"):
            ft.predict(writer(tokenizer), "a", text_pair="b")

    def test_no_start_token(self, tokenizer, pairs):
        with pytest.raises(ModelError, match="has no decoder_start_token_id"):
            pairs.encoded(writer(tokenizer, decoder_start_token_id=None))

    def test_ids_of_targets_are_checked(self, tokenizer, pairs):
        with pytest.raises(DataError, match="but the model's token embedding table has 20 rows"):
            pairs.encoded(writer(tokenizer, vocab_size=20))

    def test_a_source_without_tokens(self, tmp_path):
        from tokenizers import normalizers

        folder = write_tokenizer(tmp_path / "words", adds_end=False)
        model = writer(folder)
        model.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("dull", "")
        with pytest.raises(DataError, match="Row 0 of arrays has no tokens. Remove it."):
            ft.data.from_arrays(source=["dull"]).encoded(model)


def test_the_start_token_is_in_the_vocabulary():
    assert WORDS.index(START) == 3


class TestLanguages:
    """The tokenizers of mBART mark a target with its language, at its end or at its beginning."""

    SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]

    def model(self, folder, kind, **languages):
        import transformers
        from transformers.models.mbart50 import tokenization_mbart50

        known = tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES
        if kind == "MBartTokenizer":
            known = transformers.models.mbart.tokenization_mbart.FAIRSEQ_LANGUAGE_CODES
        words = [f"▁{word}" for word in ("a", "film", "ein", "guter", "Film")]
        vocabulary = [(word, -1.0) for word in [*self.SPECIAL, *words, *known, "<mask>"]]
        tokenizer = getattr(transformers, kind)(vocab=vocabulary, **languages)
        tokenizer.save_pretrained(folder)
        ids = tokenizer.convert_tokens_to_ids
        starts = {"decoder_start_token_id": 2 if kind == "MBart50Tokenizer" else ids("de_DE")}
        return writer(folder, eos_token_id=2, pad_token_id=1, **starts), ids

    @pytest.mark.parametrize(
        ("kind", "read", "predicted"),
        [
            ("MBartTokenizer", "de_DE ▁ein ▁Film </s>", "▁ein ▁Film </s> de_DE"),
            ("MBart50Tokenizer", "</s> de_DE ▁ein ▁Film", "de_DE ▁ein ▁Film </s>"),
        ],
    )
    def test_targets_are_those_of_pytorch(self, tmp_path, kind, read, predicted):
        model, _ = self.model(tmp_path, kind, src_lang="en_XX", tgt_lang="de_DE")
        pairs = ft.data.from_arrays(source=["a film", "a"], target=["ein Film", "ein guter Film"])
        encoded = pairs.encoded(model)
        names = model.tokenizer.convert_ids_to_tokens
        decoder_ids, targets = encoded.inputs["decoder_input_ids"], encoded.targets
        assert " ".join(names(decoder_ids[0])) == read
        assert " ".join(names(targets[0])) == predicted
        for i in range(2):  # transformers puts the last token of the labels first
            assert decoder_ids[i].tolist() == np.roll(targets[i], 1).tolist()

    def test_the_language_is_forced_where_the_decoder_writes_it(self, tmp_path):
        languages = {"src_lang": "en_XX", "tgt_lang": "de_DE"}
        model, ids = self.model(tmp_path / "50", "MBart50Tokenizer", **languages)
        ft.predict(model, ["a film"])
        assert model.asked[-1][1]["forced_bos_token_id"] == ids("de_DE")
        model, _ = self.model(tmp_path / "25", "MBartTokenizer", **languages)
        ft.predict(model, ["a film"])  # its decoder starts with the language
        assert "forced_bos_token_id" not in model.asked[-1][1]

    @pytest.mark.parametrize("kind", ["MBartTokenizer", "MBart50Tokenizer"])
    def test_languages_are_set_when_texts_are_encoded(self, tmp_path, kind):
        model, ids = self.model(tmp_path, kind)
        pairs = ft.data.from_arrays(source=["a film"], target=["ein Film"])
        pairs.encoded(model, languages=("de_DE", "ro_RO"))
        assert (model.tokenizer.src_lang, model.tokenizer.tgt_lang) == ("de_DE", "ro_RO")
        ft.predict(model, ["a film"])
        if kind == "MBartTokenizer":  # the decoder starts with the language
            assert model.config["decoder_start_token_id"] == ids("ro_RO")
            assert "forced_bos_token_id" not in model.config
        else:
            assert model.config["decoder_start_token_id"] == 2
            assert model.config["forced_bos_token_id"] == ids("ro_RO")
        for languages, message in [
            (("en", "de_DE"), "has no language 'en'. Did you mean en_XX?"),
            (("en_XX", "xx"), "has no language .xx.. It has a"),
            (("en_XX",), "takes two codes"),
        ]:
            with pytest.raises(ModelError, match=message):
                pairs.encoded(model, languages=languages)

    def test_an_unknown_language(self, tmp_path):
        model, _ = self.model(tmp_path, "MBartTokenizer", src_lang="en_XX")
        pairs = ft.data.from_arrays(source=["a film"], target=["ein Film"])
        with pytest.raises(ModelError, match="model.tokenizer.tgt_lang = "):
            pairs.encoded(model)
