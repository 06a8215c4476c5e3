"""Names that scripts import besides models: tokenizers, collators and functions."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf import compat
from finetune_tf.errors import DataError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TFTrainer", r"TFTrainer is not supported. Use instead: model.compile\(\) and model.fit"),
        ("pipeline", r"pipeline is not supported. Use instead: ft.predict\(model, texts\)"),
        ("glue_convert_examples_to_features", r"instead: tokenizer\(texts, pairs"),
        ("TFXLNetModel", "no class 'TFXLNetModel'. It has: TFAlbertForMaskedLM, "),
        (
            "TFBertMainLayer",
            r"MainLayer is not supported. Use instead: TFBertModel\(config\), which h",
        ),
        ("BertTokeniser", "Neither finetune_tf.compat nor transformers 5.* has 'BertTokeniser'"),
    ],
)
def test_unsupported_names_suggest_a_replacement(name, message):
    # As scripts import it: Python replaces the message of an AttributeError by its own.
    with pytest.raises(ImportError, match=message):
        exec(f"from finetune_tf.compat import {name}")


def test_import_paths_of_scripts():
    from finetune_tf.compat.keras_callbacks import KerasMetricCallback
    from finetune_tf.compat.modeling_tf_utils import TFPreTrainedModel

    assert KerasMetricCallback is compat.KerasMetricCallback
    assert issubclass(compat.TFBertModel, TFPreTrainedModel)
    assert compat.TFBertPreTrainedModel is TFPreTrainedModel
    everything = {}
    exec("from finetune_tf.compat import *", everything)
    assert everything["TFRobertaModel"] is compat.TFRobertaModel
    assert everything["RobertaConfig"] is compat.RobertaConfig
    assert {"BertTokenizerFast", "AutoTokenizer", "DataCollatorWithPadding"} <= everything.keys()
    example = compat.InputExample(guid=None, text_a="good", label=1)
    assert compat.InputFeatures([2, 7, 3], label=example.label).label == 1


def test_no_other_module_imports_compat():
    package = Path(ft.__file__).parent
    others = [
        p for p in package.rglob("*.py") if "compat" not in p.parts and p.name != "__init__.py"
    ]
    assert len(others) > 90
    assert not [p for p in others if "compat" in p.read_text(encoding="utf-8").split("import")]
    assert not [p for p in others if "finetune_tf.compat" in p.read_text(encoding="utf-8")]


def test_options_of_tokenizers(tiny_bert, tmp_path):
    tokenizer = compat.BertTokenizer.from_pretrained(
        tiny_bert, do_lower_case=False, add_special_tokens=True, pad_to_max_length=True
    )
    assert tokenizer.tokenize("The film") == ["[UNK]", "film"]
    tokenizer.save_pretrained(tmp_path)
    again = compat.BertTokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    assert again("The film")["input_ids"] == [2, again.vocab["the"], again.vocab["film"], 3]
    with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("##s\n")
    wider = compat.BertTokenizer(str(tmp_path / "vocab.txt"))
    assert wider.encode(["film", "##s"]) == wider.encode("films")
    with pytest.raises(DataError, match=r"these tokens, '\[MASK\]s', yields other tokens. Use"):
        wider.encode(["[MASK]", "##s"])


def test_old_tokenizer_calls(tiny_bert, tmp_path):
    tokenizer = compat.AutoTokenizer.from_pretrained(tiny_bert)
    tokens = tokenizer.tokenize("the film was good")
    ids = tokenizer("the film was good")["input_ids"]
    assert tokenizer.encode(tokens) == tokenizer.encode("the film was good") == ids
    assert tokenizer.encode_plus(tokenizer.convert_tokens_to_ids(tokens))["input_ids"] == ids
    assert tokenizer.encode(["the", "film"], is_split_into_words=True) == [*ids[:3], ids[-1]]
    texts = np.array(["the film", "good"], dtype=object)
    encoding = tokenizer.batch_encode_plus(texts, padding=True, return_tensors="tf")
    assert tokenizer.batch_decode(encoding["input_ids"], skip_special_tokens=True) == list(texts)
    assert tokenizer.decode(encoding["input_ids"][0][1]) == "the"
    short = tokenizer("the film was good", truncation_strategy="longest_first", max_length=4)
    assert short["input_ids"] == [*ids[:3], ids[-1]]
    assert pickle.loads(pickle.dumps(tokenizer))("good") == tokenizer("good")
    tokenizer.save_pretrained(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert lines[ids[1]] == "the" and lines[0] == "[PAD]"
    with pytest.raises(DataError, match=r"different lengths. Write tokenizer\(texts, padding=True"):
        tokenizer(["the film", "good"], return_tensors="tf")


def test_collators_return_tensors():
    rows = [{"input_ids": [2, 7, 3], "label": 1}, {"input_ids": [2, 8, 3], "label": 0}]
    batch = compat.default_data_collator(rows, return_tensors="tf")
    assert batch["labels"].numpy().tolist() == [1, 0]
    assert batch["input_ids"].dtype == tf.int32
