"""Training on cached features of frozen stages equals training the complete model."""

import os
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CacheError, ModelError
from finetune_tf.training.freezing import apply_frozen

TEXTS = ["a very good film", "bad", "the actor was great and the story was good", "a dull story"]
LABELS = ["good", "bad", "good", "bad"]
HEAD = ft.select.head()


@pytest.fixture
def examples():
    return ft.data.from_arrays(TEXTS * 3, LABELS * 3, name="toy")


def loaded(folder: Path, learns=HEAD, **options):
    keras.utils.set_random_seed(0)
    model = ft.load(folder, labels=["bad", "good"], **{"pooling": "mean", **options})
    ft.train_only(model, learns)
    return model


def losses(model, batches, epochs=4):
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-2))
    return model.fit(batches, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
@pytest.mark.parametrize(
    ("learns", "pooling", "folder"),
    [(HEAD, "mean", None), (HEAD | ft.select.blocks(-1), "pooler", "features")],
)
def test_training_on_features_is_training(tiny_bert, examples, learns, pooling, folder, tmp_path):
    whole, cut = (loaded(tiny_bert, learns, pooling=pooling) for _ in range(2))
    learner = ft.cache_features(cut, folder and tmp_path / folder)

    expected = losses(whole, examples.batches(whole, batch_size=4))
    found = losses(learner, examples.batches(learner, batch_size=4))

    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[-1] < found[0]
    rows = ft.predict(cut, TEXTS), ft.predict(whole, TEXTS)
    for mine, theirs in zip(*rows, strict=True):
        assert mine.score == pytest.approx(theirs.score, abs=1e-5)


def test_pooled_texts_are_one_vector_each(tiny_bert, examples, capsys):
    learner = ft.cache_features(loaded(tiny_bert))
    batch, targets = next(iter(examples.batches(learner, batch_size=5)))
    assert {name: array.shape.as_list() for name, array in batch.items()} == {
        "cached_features": [5, 24]
    }
    assert targets.shape == (5,)
    # 12 texts of 24 numbers of 4 bytes
    assert "Features of toy: computed once, 1.15 KB in memory." in capsys.readouterr().out


def test_shuffled_rows_keep_their_features(tiny_bert):
    texts = ft.data.from_arrays([" ".join(["good"] * n) for n in range(1, 25)], [*range(24)])
    model = ft.load(tiny_bert, labels=texts.labels, pooling="mean")
    ft.train_only(model, HEAD | ft.select.blocks(-1))
    learner = ft.cache_features(model)

    in_order = {}
    for inputs, targets in texts.batches(learner, 1).as_numpy_iterator():
        in_order[int(targets[0])] = inputs["cached_features"][0]
    for inputs, targets in texts.batches(learner, 4, shuffle=True).as_numpy_iterator():
        for row, mask, target in zip(
            inputs["cached_features"], inputs["attention_mask"], targets, strict=True
        ):
            length = mask.sum()
            assert length == target + 3 and not row[length:].any()
            np.testing.assert_allclose(row[:length], in_order[target][:length], atol=1e-5)


@pytest.mark.slow
def test_features_in_a_folder_outlive_the_run(tiny_bert, examples, tmp_path, capsys):
    def first_batch(source=tiny_bert, data=examples, precision="float32", learns=HEAD, **options):
        learner = ft.cache_features(loaded(source, learns, **options), tmp_path, precision)
        batch = next(iter(data.batches(learner)))[0]["cached_features"].numpy()
        return batch, capsys.readouterr().out

    batch, told = first_batch()
    assert "computed once" in told
    again, told = first_batch()
    assert "read from" in told and "computed" not in told
    np.testing.assert_array_equal(again, batch)

    other_weights = write_checkpoint(tmp_path / "other", seed=1)
    other_eps = write_checkpoint(tmp_path / "eps", layer_norm_eps=1e-3)
    for different in (
        {"data": ft.data.from_arrays(TEXTS[::-1] * 3, LABELS * 3, name="toy")},
        {"source": other_weights},
        {"source": other_eps},
        {"pooling": "cls"},
        {"learns": HEAD | ft.select.blocks(-1)},
        {"precision": "bfloat16"},
    ):
        assert "computed once" in first_batch(**different)[1], different


@pytest.mark.slow
def test_half_the_room(tiny_bert, examples, tmp_path, capsys):
    model = loaded(tiny_bert)
    whole, half = (
        next(iter(examples.batches(ft.cache_features(model, tmp_path, precision))))[0][
            "cached_features"
        ]
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == "float32"
    np.testing.assert_allclose(half, whole, rtol=2**-8)
    sizes = sorted(path.stat().st_size for path in tmp_path.glob("*.npy"))
    assert sizes == [128 + 12 * 24 * 2, 128 + 12 * 24 * 4]


@pytest.mark.slow
def test_by_default_as_precise_as_the_model(tiny_bert, examples, tmp_path):
    for dtype, size in (("float32", 4), ("mixed_bfloat16", 2)):
        model = loaded(tiny_bert, dtype=dtype)
        examples.batches(ft.cache_features(model, tmp_path / dtype))
        (file,) = (tmp_path / dtype).glob("*.npy")
        assert file.stat().st_size == 128 + 12 * 24 * size


def test_a_pass_that_breaks_off_leaves_no_file(tiny_bert, examples, tmp_path):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model, tmp_path)
    learner._origin.trunk.call = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        examples.batches(learner)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_fresh_weights_mean_fresh_features(tiny_bert, examples, capsys):
    """The frozen part may be trained in between, as part of the complete model."""
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    before = next(iter(examples.batches(learner)))[0]["cached_features"].numpy()
    table = model.get_layer("embeddings").weights[0]
    table.assign(table * 1.1)
    after = next(iter(examples.batches(learner)))[0]["cached_features"].numpy()
    assert np.abs(after - before).max() > 1e-3
    assert capsys.readouterr().out.count("computed once") == 2


def test_features_of_earlier_weights(tiny_bert, examples):
    """As after a fit of the whole model between two fits of the upper part."""
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    batches = examples.batches(learner, batch_size=4)
    learner.compile()
    learner.fit(batches, verbose=0)
    table = model.get_layer("embeddings").weights[0]
    table.assign(table * 1.5)
    with pytest.raises(ModelError, match="The weights below the cut have changed since features"):
        learner.fit(batches, verbose=0)
    learner.fit(examples.batches(learner, batch_size=4), verbose=0)


def predicts_other_texts(learner, batches, fresh):
    ft.predict(learner, TEXTS)  # computes the features of these
    learner.fit(batches, verbose=0)


def validates_fresh_features(learner, batches, fresh):
    learner.fit(batches, validation_data=fresh(), verbose=0)


def validates_old_features(learner, batches, fresh):
    learner.fit(fresh(), validation_data=batches, verbose=0)


def measures_old_features(learner, batches, fresh):
    measure = ft.callbacks.Measure(lambda logits, targets: {}, batches)
    learner.fit(fresh(), callbacks=[measure], verbose=0)


def evaluates(learner, batches, fresh):
    learner.evaluate(batches, verbose=0)


def predicts(learner, batches, fresh):
    learner.predict(batches, verbose=0)


@pytest.mark.parametrize(
    "use",
    [
        predicts_other_texts,
        validates_fresh_features,
        validates_old_features,
        measures_old_features,
        evaluates,
        predicts,
    ],
)
def test_no_use_of_features_of_earlier_weights(use, tiny_bert, examples):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    batches = examples.batches(learner, batch_size=4)
    learner.compile()
    table = model.get_layer("embeddings").weights[0]
    table.assign(table * 1.5)
    with pytest.raises(ModelError, match="The weights below the cut have changed since features"):
        use(learner, batches, lambda: examples.batches(learner, batch_size=4))


def test_features_with_other_adapters(tiny_bert, examples):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    ft.adapters.add(model, ft.adapters.LoRA(rank=2))
    ft.train_only(model, HEAD)
    learner = ft.cache_features(model)
    batches = examples.batches(learner, batch_size=4)
    ft.adapters.switch(model, None)
    with pytest.raises(ModelError, match="other adapters are active there"):
        learner.fit(batches, verbose=0)


def test_batches_of_an_earlier_cut(tiny_bert, examples):
    """As in a second phase on cached features, after a fit of the whole model."""
    model = loaded(tiny_bert)
    batches = examples.batches(ft.cache_features(model), batch_size=4)
    ft.cache_features(model).fit(batches, verbose=0)
    table = model.get_layer("embeddings").weights[0]
    table.assign(table * 1.5)
    with pytest.raises(ModelError, match="or the features are those of another model"):
        ft.cache_features(model).fit(batches, verbose=0)


def test_batches_of_the_whole_model(tiny_bert, examples):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    learner.compile()
    whole = examples.batches(model, batch_size=4)
    message = r"reads cached_features, found input_ids, .* train.batches\(learner, …\)"
    for method in (learner.fit, learner.evaluate, learner.predict):
        with pytest.raises(ModelError, match=message):
            method(whole, verbose=0)


def test_arrays_of_features_of_earlier_weights():
    dense = keras.layers.Dense(2, trainable=False)
    network = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(1)])
    learner = ft.cache_features(network)
    learner.compile("sgd", "mse")
    x, y = np.ones((4, 3), "float32"), np.ones(4)
    before = learner.features(x)
    learner.fit(before, y, verbose=0)
    dense.bias.assign([1.0, 2.0])
    now = learner.features(2 * x)
    with pytest.raises(ModelError, match="The weights below the cut have changed since features"):
        learner.fit(before, y, verbose=0)
    learner.fit(now, y, verbose=0)


def test_what_is_below_the_cut_must_not_learn(tiny_bert, examples):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    batches = examples.batches(learner)
    ft.train_only(model, HEAD | ft.select.blocks(-1))
    with pytest.raises(ModelError, match="block_1 learn by now, but are below the cut"):
        learner.fit(batches)
    with pytest.raises(ModelError, match="block_1 learn by now"):
        examples.batches(learner)


def test_nothing_to_store(tiny_bert):
    model = ft.load(tiny_bert)
    with pytest.raises(CacheError, match="The lowest stage of the model is trainable"):
        ft.cache_features(model)
    apply_frozen(model, {id(v) for v in model.weights})
    with pytest.raises(CacheError, match="The model has no trainable variables"):
        ft.cache_features(model)
    with pytest.raises(ModelError, match="stored as 'float32' or 'bfloat16', found 'int8'"):
        ft.cache_features(model, precision="int8")


def test_words_hidden_anew_in_each_epoch_cannot_be_stored(tiny_bert):
    model = ft.load(tiny_bert, "fill-mask")
    ft.train_only(model, ft.select.head())
    learner = ft.cache_features(model)
    texts = ft.data.from_arrays(TEXTS)
    with pytest.raises(CacheError, match="fill-mask draws other rows in each epoch"):
        texts.batches(learner, shuffle=True)
    assert "cached_features" in next(iter(texts.batches(learner)))[0]


def test_too_little_room_is_told_before_anything_is_computed(
    tiny_bert, examples, tmp_path, monkeypatch
):
    learner = ft.cache_features(loaded(tiny_bert), tmp_path)
    disk = type("Disk", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    with pytest.raises(CacheError, match=r"Features of toy take 1.15 KB, but .* has 100 bytes"):
        examples.batches(learner)
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.slow
def test_the_whole_model_is_what_is_saved(tiny_bert, examples, tmp_path):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    learner.fit(examples.batches(learner), verbose=0)
    learner.save_pretrained(tmp_path / "saved")
    assert ft.predict(ft.load(tmp_path / "saved"), TEXTS) == ft.predict(model, TEXTS)
    assert "50 of" in (tmp_path / "saved" / "README.md").read_text()
    learner.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert ft.predict(again, TEXTS) == ft.predict(model, TEXTS)
    assert ft.evaluate(learner, examples).metrics == ft.evaluate(model, examples).metrics


def test_the_tokenizer_is_that_of_the_whole_model(tiny_bert):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    learner.tokenizer = tokenizer = ft.load(tiny_bert).tokenizer
    assert learner.tokenizer is tokenizer and model.tokenizer is tokenizer
    learner.resize_token_embeddings(len(tokenizer) + 1)
    assert model.config.vocab_size == len(tokenizer) + 1


def test_the_whole_model_is_uploaded(tiny_bert, monkeypatch):
    uploaded = []
    monkeypatch.setattr("finetune_tf.model.saving.push_to_hub", lambda *a, **_: uploaded.append(a))
    model = loaded(tiny_bert)
    ft.cache_features(model).push_to_hub("name/model", private=True)
    assert uploaded == [(model, "name/model", True, None)]


@pytest.mark.slow
def test_the_whole_model_is_exported(tiny_bert, examples, tmp_path):
    model = loaded(tiny_bert)
    learner = ft.cache_features(model)
    learner.fit(examples.batches(learner), verbose=0)
    served = ft.load_exported(learner.export(tmp_path / "served"))
    expected = ft.predict(model, TEXTS)
    assert [row.label for row in ft.predict(served, TEXTS)] == [row.label for row in expected]


@pytest.mark.slow
def test_the_recipe_stores_features_where_blocks_are_frozen(tiny_bert, examples, capsys):
    runs = {
        stores: ft.finetune(
            tiny_bert, examples, examples, policy="head", dropout=0.0, epochs=3,
            pooling="mean", store_features=stores, keep="last", dtype="float32",
        )
        for stores in (True, False)
    }  # fmt: skip
    np.testing.assert_allclose(
        runs[True].history["val_loss"], runs[False].history["val_loss"], rtol=1e-5
    )
    assert capsys.readouterr().out.count("computed once") == 1  # the same texts twice

    ft.finetune(tiny_bert, examples, examples, policy="full", epochs=1)
    watching = (keras.callbacks.Callback(),)
    ft.finetune(tiny_bert, examples, examples, policy="head", epochs=1, callbacks=watching)
    assert "computed once" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_recipe_goes_on_without_room(tiny_bert, examples, capsys, monkeypatch):
    free = iter([10**9])  # enough for the model, and then almost nothing
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=next(free, 100)))
    result = ft.finetune(tiny_bert, examples, examples, policy="head", epochs=1)
    assert len(result.history["loss"]) == 1
    assert "Frozen stages are computed in each epoch: " in capsys.readouterr().out
