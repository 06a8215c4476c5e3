"""Balanced batches: every class equally often in each epoch, from (seed, epoch)."""

from collections import Counter

import numpy as np
import pytest
from helpers_models import ENGLISH, small_model

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.messages import quiet

# 20 texts: 14 are "common", 4 "rare", 2 "rarest"; their number of words makes two buckets.
LABELS = ["common"] * 14 + ["rare"] * 4 + ["rarest"] * 2
TEXTS = [f"the film was {'very ' * (i % 3)}good" for i in range(20)]


@pytest.fixture(scope="module")
def examples():
    texts = [f"{ENGLISH[i % 17]} {ENGLISH[i // 17]} {'very ' * (i % 3)}" for i in range(20)]
    return ft.data.from_arrays(texts, LABELS)


@pytest.fixture(scope="module")
def model(examples, tiny_bert):
    with quiet():
        return ft.load(tiny_bert, labels=examples.labels)


def epoch(batches):
    """The rows of the next epoch as (token ids, class), and the sizes of its batches."""
    rows, sizes = [], []
    for inputs, targets in batches:
        sizes.append(len(targets))
        lengths = inputs["attention_mask"].numpy().sum(axis=1)
        for ids, length, target in zip(
            inputs["input_ids"].numpy(), lengths, targets.numpy(), strict=True
        ):
            rows.append((tuple(ids[:length].tolist()), int(target)))
    return rows, sizes


def test_an_epoch_has_all_classes_equally_often(examples, model):
    batches = examples.batches(model, 6, shuffle=True, seed=3, balance=True)
    assert int(batches.cardinality()) == 4
    seen = Counter()
    for _ in range(6):
        rows, sizes = epoch(batches)
        assert sorted(sizes) == [2, 6, 6, 6]
        counts = Counter(target for _, target in rows)
        assert sorted(counts.values()) == [6, 7, 7]  # 20 rows of three classes
        of_row = Counter(rows)
        assert max(n for (_, target), n in of_row.items() if target == 0) == 1
        assert {n for (_, target), n in of_row.items() if target == 1} <= {1, 2}
        assert {n for (_, target), n in of_row.items() if target == 2} <= {3, 4}
        seen.update(rows)
    assert len(seen) == 20  # frequent rows change from epoch to epoch


@pytest.mark.slow
def test_the_order_follows_from_seed_and_epoch(examples, model):
    def epochs(seed, first=0):
        batches = examples.batches(model, 6, shuffle=True, seed=seed, balance=True)
        batches.cursor.epoch = first
        return [epoch(batches)[0] for _ in range(3 - first)]

    first = epochs(3)
    assert epochs(3) == first and first[0] != first[1]
    assert epochs(3, first=1) == first[1:]
    assert epochs(4) != first


def test_batches_without_balance_are_those_of_before(examples, model):
    plain = examples.batches(model, 6, shuffle=True, seed=3)
    assert Counter(target for _, target in epoch(plain)[0]) == {0: 14, 1: 4, 2: 2}


def test_complete_batches_only(examples, model):
    batches = examples.batches(model, 6, shuffle=True, balance=True, drop_remainder=True)
    assert epoch(batches)[1] == [6, 6, 6]


@pytest.mark.slow
def test_cached_features(examples, tiny_bert):
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        ft.train_only(model, ft.select.head())
        upper = ft.cache_features(model)
        batches = examples.batches(upper, 6, shuffle=True, balance=True)
    counts = Counter(int(t) for _, targets in batches for t in targets.numpy())
    assert sorted(counts.values()) == [6, 7, 7]
    with quiet():
        upper.compile()
        history = upper.fit(batches, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_several_labels_count_by_the_rarest(tiny_bert):
    labels = [["a"]] * 6 + [["a", "b"]] * 2 + [[]] * 4
    examples = ft.data.from_arrays(TEXTS[:12], labels)
    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
    batches = examples.batches(model, 4, shuffle=True, balance=True)
    rows = [tuple(row) for _, targets in batches for row in targets.numpy().astype(int).tolist()]
    assert Counter(rows) == {(1, 0): 4, (1, 1): 4, (0, 0): 4}


def test_images(tmp_path):
    from helpers_images import TINY_VIT, write_classes

    folder = write_classes(tmp_path / "images", count=6)
    for path in sorted((folder / "red").iterdir())[2:]:
        path.unlink()
    examples = ft.data.from_image_folder(folder)
    with quiet():
        model = ft.load(TINY_VIT, labels=examples.labels, new_head=True)
    batches = examples.batches(model, 4, shuffle=True, balance=True)
    counts = Counter(int(t) for _, targets in batches for t in targets.numpy())
    assert counts == {0: 4, 1: 4}


def test_what_cannot_be_balanced(examples, model, tiny_bert):
    with pytest.raises(ArgumentError, match="balance=True draws other rows .* Add shuffle=True"):
        examples.batches(model, balance=True)
    with pytest.raises(ArgumentError, match="with tokens_per_batch the number of batches would"):
        examples.batches(model, shuffle=True, balance=True, tokens_per_batch=64)
    with pytest.raises(DataError, match="balance=True needs at least two classes, but .* has one"):
        examples[:14].batches(model, shuffle=True, balance=True)
    unlabelled = ft.data.from_arrays(TEXTS)
    with pytest.raises(DataError, match="but texts? .*has no labels|has no labels"):
        unlabelled.batches(model, shuffle=True, balance=True)
    scores = ft.data.from_arrays(TEXTS, np.linspace(0, 1, 20).tolist(), problem_type="regression")
    with quiet():
        regression = ft.load(tiny_bert, labels=scores.labels)
        masked = ft.load(tiny_bert, "fill-mask")
    with pytest.raises(ArgumentError, match="the rows of a regression have no classes. Leave it"):
        scores.batches(regression, shuffle=True, balance=True)
    with pytest.raises((ArgumentError, DataError), match="balance=True"):
        unlabelled.batches(masked, shuffle=True, balance=True)


def test_rows_that_a_fit_holds_out_have_no_part_in_balanced_weights():
    from helpers_models import small_model, token_batch

    from finetune_tf.model import weighted
    from finetune_tf.training.sample_weights import balanced_weights

    tokens, targets = token_batch(20)[0], np.array([0] * 9 + [1] * 3 + [1] * 8)
    model, seen = small_model(), []
    given = {"validation_split": 0.4, "class_weight": "balanced", "verbose": 0}
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.setattr(
            weighted, "balanced_weights", lambda *a: seen.append(balanced_weights(*a)) or seen[0]
        )
        model.compile("sgd")
        model.fit(tokens, targets, **given)
    assert seen == [{0: 12 / 18, 1: 12 / 6}]


@pytest.mark.slow
def test_balanced_class_weights(examples, tiny_bert):
    """The loss is that of the weights n / (C n_c), for batches and for arrays."""
    from finetune_tf.training.sample_weights import balanced_weights

    with quiet():
        model = ft.load(tiny_bert, labels=examples.labels)
        model.compile("sgd")
    expected = {"common": 20 / 42, "rare": 20 / 12, "rarest": 20 / 6}
    batches = examples.batches(model, 20)
    assert batches.class_counts.tolist() == [14, 4, 2]
    with quiet():
        by_name = model.evaluate(batches, class_weight=expected, verbose=0)[0]
        assert model.evaluate(batches, class_weight="balanced", verbose=0)[0] == by_name
        assert model.evaluate(batches, verbose=0)[0] != by_name
        inputs, targets = next(iter(batches))
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        given = {"y": targets.numpy(), "class_weight": "balanced", "batch_size": 20, "verbose": 0}
        assert model.evaluate(arrays, **given)[0] == pytest.approx(by_name, abs=1e-6)
        model.fit(batches, class_weight="balanced", verbose=0)
    both = examples.batches(model, 20, shuffle=True, balance=True)
    assert balanced_weights(both, None, "classes", 3) == {0: 1.0, 1: 1.0, 2: 1.0}
    with pytest.raises(ArgumentError, match='class_weight="balanced" needs one class for each row'):
        model.fit(batches.map(lambda x, y: (x, y)), class_weight="balanced", verbose=0)


def test_a_fit_says_that_rows_are_in_the_order_of_their_classes(tiny_bert, capsys):
    model = small_model(("bad", "good"), tiny_bert)
    texts = [f"the film {ENGLISH[i % 17]} {ENGLISH[i // 17]}" for i in range(64)]
    rows = ft.data.from_arrays(texts, ["bad"] * 32 + ["good"] * 32)
    model.compile()
    model.fit(rows.batches(model, 32), verbose=0)
    assert "The rows of these batches are in the order of their" in capsys.readouterr().out
    for batches in (rows.batches(model, 32, shuffle=True), rows.shuffle(0).batches(model, 32)):
        model.fit(batches, validation_data=rows.batches(model, 32), verbose=0)
    assert "in the order of their classes" not in capsys.readouterr().out
