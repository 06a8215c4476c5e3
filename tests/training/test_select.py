"""The variables that selectors match."""

import json
import re

import keras
import pytest

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.errors import FinetuneError, ModelError


@pytest.fixture(scope="module")
def bert(tiny_bert):
    return ft.load(tiny_bert, labels=["no", "yes"])


def paths(selector, model):
    return [variable.path for variable in selector(model)]


def layers(selector, model):
    """Returns the layers of the selected variables, without duplicates."""
    return list(dict.fromkeys(path.split("/")[0] for path in paths(selector, model)))


def test_head_is_what_no_checkpoint_trained(bert):
    assert paths(select.head(), bert) == ["classifier/dense/kernel", "classifier/dense/bias"]


def test_an_unfilled_pooler_is_head(tmp_path, tiny_bert):
    from safetensors.numpy import load_file, save_file

    for file in tiny_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("pooler")}
    save_file(kept, tmp_path / "model.safetensors")
    assert layers(select.head(), ft.load(tmp_path, labels=2)) == ["pooler", "classifier"]


def test_stage_selectors(bert):
    assert layers(select.embeddings(), bert) == ["embeddings"]
    assert layers(select.bottom(1), bert) == ["block_0"]
    assert layers(select.bottom(2), bert) == ["block_0", "block_1"]
    assert layers(select.blocks(1), bert) == ["block_1"]
    assert layers(select.blocks(1, 2), bert) == ["block_1"]
    assert layers(select.blocks(-1), bert) == ["block_1"]
    assert len(select.everything()(bert)) == len(bert.weights) == 41


def test_biases_include_those_of_norms(bert):
    found = paths(select.biases(), bert)
    assert len(found) == 1 + 2 * 8 + 1 + 1
    assert "block_0/attention/query/bias" in found
    assert "block_0/attention_norm/beta" in found
    assert not [path for path in found if path.endswith(("kernel", "gamma", "embeddings"))]


def test_norms_are_scale_and_offset(bert):
    assert paths(select.norms(), bert)[:4] == [
        "embeddings/norm/gamma",
        "embeddings/norm/beta",
        "block_0/attention_norm/gamma",
        "block_0/attention_norm/beta",
    ]
    assert len(select.norms()(bert)) == 10


def test_matching_searches_paths(bert):
    assert paths(select.matching(r"attention/(query|value)/kernel"), bert) == [
        "block_0/attention/query/kernel",
        "block_0/attention/value/kernel",
        "block_1/attention/query/kernel",
        "block_1/attention/value/kernel",
    ]


def test_selectors_combine(bert):
    assert layers(select.head() | select.embeddings(), bert) == ["embeddings", "classifier"]
    assert paths(select.head() & select.biases(), bert) == ["classifier/dense/bias"]
    assert layers(~(select.blocks(0) | select.embeddings()), bert) == ["pooler", "classifier"]
    assert layers(~~select.head(), bert) == ["classifier"]


def test_selectors_read_as_they_were_written():
    selector = ~(select.embeddings() | select.bottom(6)) & select.biases()
    assert repr(selector) == "(~(embeddings() | bottom(6)) & biases())"
    assert repr(select.matching("a|b")) == "matching('a|b')"
    assert repr(select.blocks(-2)) == "blocks(-2)"
    assert repr(select.blocks(1, 3)) == "blocks(1, 3)"


def test_a_selector_that_matches_nothing_raises_and_lists_the_stages(bert):
    message = (
        "The selector matching('lora') matches nothing in 'bert', whose stages are: "
        "embeddings (embeddings), block_0 (block), block_1 (block), pooler (pooler), "
        "classifier (head)."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        select.matching("lora")(bert)
    with pytest.raises(ModelError, match=re.escape("(head() & embeddings()) matches nothing in")):
        (select.head() & select.embeddings())(bert)
    message = "(matching('lora') & norms()) matches nothing (matching('lora') by itself) in 'bert'"
    with pytest.raises(ModelError, match=re.escape(message)):
        (select.matching("lora") & select.norms())(bert)
    with pytest.raises(ModelError, match=re.escape("~everything() matches nothing")):
        ft.freeze(bert, ~select.everything())


@pytest.fixture(scope="module")
def headless(tiny_bert):
    """A model for text embeddings, without any layer on top of the checkpoint."""
    return ft.load(tiny_bert, "feature-extraction")


@pytest.fixture(scope="module")
def foreign():
    layers_ = [keras.layers.Dense(3, name="a"), keras.layers.LayerNormalization(name="b")]
    return keras.Sequential([keras.Input((4,)), *layers_])


def test_combining_is_algebra_whatever_a_part_matches(headless, foreign):
    for model in (headless, foreign):
        every = paths(select.everything(), model)
        assert select.head().matches(model) == []
        assert paths(~select.head(), model) == every
        assert paths(select.head() | select.norms(), model) == paths(select.norms(), model)
        assert paths(~(select.head() & select.norms()), model) == every
        assert (select.head() & select.everything()).matches(model) == []
        assert paths(~~select.biases(), model) == paths(select.biases(), model)
        assert (~select.everything()).matches(model) == []


@pytest.mark.parametrize("apply", [ft.freeze, ft.train_only])
def test_matching_nothing_is_an_error_where_a_selector_is_applied(headless, apply):
    with pytest.raises(
        ModelError, match=re.escape("The selector head() matches nothing in 'bert'")
    ):
        apply(headless, select.head())
    message = "The selector (head() | chain('image')) matches nothing (head(), chain('image') by"
    with pytest.raises(ModelError, match=re.escape(message)):
        apply(headless, select.head() | select.chain("image"))
    apply(headless, ~select.head() & ~select.norms())
    ft.train_only(headless, select.everything())


SELECTORS = [
    select.everything(),
    select.head() | select.norms(),
    ~(select.embeddings() | select.bottom(1)) & select.biases(),
    ~~select.blocks(-1) | select.blocks(0, 1) | select.blocks(0, chain="text"),
    select.bottom(2, chain="image") & ~select.chain("text/inner"),
    select.matching(r"attention/(query|value)"),
    select.matching("kernel$", description="every kernel"),
]


@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_a_selector_can_be_written_and_read_back(selector):
    written = json.dumps(selector.get_config())
    again = select.from_config(json.loads(written))
    assert str(again) == str(selector)
    assert again.get_config() == selector.get_config()


def test_a_selector_that_was_read_means_the_same(bert):
    for selector in SELECTORS[:3]:
        assert paths(select.from_config(selector.get_config()), bert) == paths(selector, bert)


def test_how_a_selector_is_written():
    assert (select.head() | ~select.blocks(-2)).get_config() == {
        "select": "or",
        "parts": [
            {"select": "head"},
            {"select": "not", "parts": [{"select": "blocks", "start": -2}]},
        ],
    }
    mine = select.Selector("mine()", lambda model: [])
    with pytest.raises(ModelError, match=re.escape("The selector mine() uses a custom function")):
        json.dumps((mine | select.head()).get_config())


@pytest.mark.parametrize(
    "config",
    [
        "head",
        {},
        {"select": "layers"},
        {"select": "head", "parts": []},
        {"select": "blocks"},
        {"select": "head", "n": 1},
        {"select": "or", "parts": [{"select": "head"}]},
        {"select": "not"},
        {"select": "not", "parts": [{"select": "head"}], "n": 1},
        {"select": ["head"]},
    ],
    ids=str,
)
def test_a_config_that_describes_no_selector(config):
    with pytest.raises(
        FinetuneError, match=r"(The config of a selector must be a dict|takes no argument)"
    ):
        select.from_config(config)


def test_a_config_with_a_number_out_of_range():
    with pytest.raises(ModelError, match=re.escape("n must be an integer >= 1, found 0.")):
        select.from_config({"select": "bottom", "n": 0})


def test_more_blocks_than_there_are(bert):
    message = "The selector bottom(99) selects blocks beyond the 2 blocks of the model."
    with pytest.raises(ModelError, match=re.escape(message)):
        ft.freeze(bert, select.bottom(99))
    with pytest.raises(ModelError, match=re.escape("n must be an integer >= 1, found 0.")):
        select.bottom(0)


def test_a_pattern_that_is_no_regular_expression():
    with pytest.raises(ModelError, match=re.escape("matching('(') is not a valid regular expr")):
        select.matching("(")


@pytest.mark.parametrize("freeze", [ft.freeze, ft.train_only])
def test_what_is_no_selector(bert, freeze):
    message = "Expected a selector such as ft.select.head(), found "
    with pytest.raises(ModelError, match=re.escape(f"{message}head without its ().")):
        freeze(bert, select.head)
    with pytest.raises(ModelError, match=re.escape(f"{message}'head'.")):
        freeze(bert, "head")
