"""The layouts of checkpoint folders: what they read, their rows, and what opens them."""

import json

import pytest
from helpers_checkpoints import reference

import finetune_tf as ft
from finetune_tf.checkpoints.layouts import SENTENCE_TRANSFORMERS, TRANSFORMERS, read_modules
from finetune_tf.families import FAMILIES
from finetune_tf.tasks import get_task

FOLDER, _ = reference("relu")
BERT = FAMILIES["bert"]
HEAD = BERT.head("text-classification", BERT.complete({}))


@pytest.mark.parametrize(
    ("task", "pooling", "layout"),
    [
        ("text-classification", "pooler", TRANSFORMERS),
        ("text-classification", "mean", SENTENCE_TRANSFORMERS),
        ("text-classification", "cls", SENTENCE_TRANSFORMERS),
        ("feature-extraction", "pooler", TRANSFORMERS),
        ("feature-extraction", "mean", SENTENCE_TRANSFORMERS),
        ("token-classification", None, TRANSFORMERS),
        ("question-answering", None, TRANSFORMERS),
        ("fill-mask", None, TRANSFORMERS),
    ],
)
def test_a_task_chooses_the_layout(task, pooling, layout):
    assert get_task(task).layout(pooling) is layout


def test_what_opens_a_folder_and_what_its_config_names():
    suffix = "ForSequenceClassification"
    assert TRANSFORMERS.class_name(BERT, suffix) == "BertForSequenceClassification"
    assert TRANSFORMERS.opens_in(BERT, suffix) == "transformers.BertForSequenceClassification"
    assert SENTENCE_TRANSFORMERS.class_name(BERT, suffix) == "BertModel"
    library = "sentence_transformers.SentenceTransformer"
    assert SENTENCE_TRANSFORMERS.opens_in(BERT, suffix) == library


def test_the_tensors_of_a_head():
    names = [row.tensors for row in TRANSFORMERS.rows(HEAD)]
    assert names == [("classifier.weight",), ("classifier.bias",)]
    names = [row.tensors for row in SENTENCE_TRANSFORMERS.rows(HEAD)]
    assert names == [("2_Dense.linear.weight",), ("2_Dense.linear.bias",)]


@pytest.mark.parametrize(
    ("file", "content", "field", "value"),
    [
        ("modules.json", [{"path": "", "type": "sentence_transformers.models.Transformer"}],
         "types", ("Transformer",)),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}, "pooling", "mean"),
        ("sentence_bert_config.json", {"max_seq_length": 9}, "max_length", 9),
        ("sentence_xlm-roberta_config.json", {"do_lower_case": True}, "lower_case", True),
        ("config_sentence_transformers.json",
         {"prompts": {"q": "query: "}, "default_prompt_name": "q"}, "prompt", "query: "),
    ],
)  # fmt: skip
def test_one_file_makes_a_folder_of_sentence_transformers(tmp_path, file, content, field, value):
    assert SENTENCE_TRANSFORMERS.read(tmp_path) is None
    assert read_modules(tmp_path) == TRANSFORMERS.read(tmp_path)
    assert getattr(read_modules(tmp_path), field) != value
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    assert getattr(SENTENCE_TRANSFORMERS.read(tmp_path), field) == value
    assert getattr(read_modules(tmp_path), field) == value


def test_what_is_written_is_read(tmp_path, tiny_bert):
    model = ft.load(tiny_bert, labels=["a", "b", "c"], pooling="mean")
    modules = SENTENCE_TRANSFORMERS.read(model.save_pretrained(tmp_path / "classifier"))
    assert (modules.pooling, modules.dense_size, modules.max_length) == ("mean", 3, 32)
    assert modules.types == ("Transformer", "Pooling", "Dense")
    model = ft.load(FOLDER)
    assert SENTENCE_TRANSFORMERS.read(model.save_pretrained(tmp_path / "transformers")) is None
