"""Arguments of `finetune`: class weights, verbosity, tasks, the initial bias of a regression."""

import numpy as np
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import ArgumentError

GOOD, BAD = ["a very good film", "the actor was great"], ["a very bad film", "the actor was poor"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one-block", blocks=1)


@pytest.fixture
def reviews():
    return ft.data.from_arrays(GOOD * 8 + BAD * 8, ["good"] * 16 + ["bad"] * 16, name="toy")


@pytest.mark.slow
def test_class_weights_reach_the_loss(base, reviews):
    def loss(**options):
        return ft.finetune(
            base, reviews, reviews, epochs=1, batch_size=64, verbose=0, dropout=0.0,
            dtype="float32", **options,
        ).history["loss"][0]  # fmt: skip

    plain, doubled = loss(), loss(class_weight={0: 2.0, 1: 2.0})
    assert doubled == pytest.approx(2 * plain, rel=1e-5)


@pytest.mark.slow
def test_verbose_is_passed_to_keras(base, reviews, capsys):
    ft.finetune(base, reviews, reviews, epochs=1, verbose=2)
    assert "1/1 - " in capsys.readouterr().out
    ft.finetune(base, reviews, reviews, epochs=1, verbose=0)
    assert "epoch 1" not in capsys.readouterr().out.lower()


@pytest.mark.slow
def test_the_task_is_inferred_as_in_load(base, reviews):
    assert ft.finetune(base, reviews, reviews, epochs=1).settings["task"] == "text-classification"


def test_validation_examples_that_are_trained_on_are_said(base, reviews, capsys):
    ft.finetune(base, reviews, reviews[:5], policy="head", epochs=1, verbose=0)
    assert (
        "5 of 5 validation examples also occur in the training examples, so results on them are "
        "too good to choose by.\n"
    ) in capsys.readouterr().out
    fresh = ft.data.from_arrays(["a dull story", "a fine story"], ["bad", "good"])
    ft.finetune(base, reviews, fresh, policy="head", epochs=1, verbose=0)
    assert "validation examples also" not in capsys.readouterr().out


@pytest.mark.parametrize("name, value", [("epochs", 0), ("batch_size", -3), ("seed", 1.5)])
def test_numbers_are_checked_before_anything_is_loaded(reviews, name, value):
    with pytest.raises(ArgumentError, match=f"{name} must be an integer"):
        ft.finetune("no-such-checkpoint", reviews, **{name: value})


def test_settings_of_the_optimizer_are_checked_before_anything_is_loaded(reviews):
    for wrong, message in (
        ({"schedule": "sine"}, "The schedule must be 'linear', 'cosine', 'one-cycle'"),
        ({"warmup_ratio": 1}, "warmup_ratio must be a number >= 0 and < 1, found 1."),
        ({"rates": {ft.select.head(): 0}}, r"The rate for head\(\) must be a factor"),
    ):
        with pytest.raises(ft.errors.FinetuneError, match=message):
            ft.finetune("no-such-checkpoint", reviews, **wrong)


@pytest.mark.slow
def test_settings_of_the_optimizer_reach_it(base, reviews):
    result = ft.finetune(
        base, reviews, reviews, policy="head-first", epochs=1, verbose=0, schedule="cosine",
        warmup_ratio=0.2, weight_decay=0.1, rates={ft.select.head(): 10.0},
    )  # fmt: skip
    optimizer = result.model.optimizer
    assert str(optimizer._learning_rate) == "5e-05, warm-up and cosine decay"
    assert optimizer._learning_rate.warmup_ratio == 0.2 and optimizer.decay == 0.1
    assert float(optimizer.rate_factors["head()"]) == 10.0
    assert result.settings["rates"] == {"head()": 10.0} and result.settings["weight_decay"] == 0.1


@pytest.mark.slow
def test_a_regression_starts_from_the_training_mean(base, capsys):
    years = ft.data.from_arrays(GOOD * 4 + BAD * 4, [1990.5, 2010.5] * 8, name="years")
    result = ft.finetune(base, years, years, epochs=1, learning_rate=1e-5, keep="last", verbose=0)
    assert "The output bias is set to the mean of the training targets, 2000." in (
        capsys.readouterr().out
    )
    predicted = [prediction.score for prediction in ft.predict(result.model, GOOD + BAD)]
    np.testing.assert_allclose(predicted, 2000.5, atol=2)


def test_a_head_at_the_training_mean_counts_as_untrained(base, capsys):
    scores = ft.data.from_arrays(GOOD + BAD, [2.5, 3.5, 0.5, 1.5])
    model = ft.load(base, labels=scores.labels)
    assert ft.start_from_mean(model, scores) == 2.0
    assert model.get_layer("classifier").dense.bias.numpy().tolist() == [2.0]
    capsys.readouterr()
    ft.predict(model, GOOD)
    assert "The head of this model (classifier) is not trained" in capsys.readouterr().out


def test_a_trained_head_and_other_tasks_keep_their_bias(base, reviews, tmp_path):
    classifier = ft.load(base, labels=reviews.labels)
    assert ft.start_from_mean(classifier, reviews) is None
    assert not classifier.get_layer("classifier").dense.bias.numpy().any()

    scores = ft.data.from_arrays(GOOD + BAD, [2.5, 3.5, 0.5, 1.5])
    model = ft.load(base, labels=scores.labels)
    model.get_layer("classifier").dense.bias.assign([7.0])
    again = ft.load(model.save_pretrained(tmp_path / "trained"))
    assert ft.start_from_mean(again, scores) is None
    assert again.get_layer("classifier").dense.bias.numpy().tolist() == [7.0]
