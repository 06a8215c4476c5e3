"""The space of settings that `tune` searches."""

import pytest
from helpers_models import small_model

import finetune_tf as ft
from finetune_tf.errors import ArgumentError
from finetune_tf.search.space import (
    Choice,
    as_code,
    checked_space,
    combinations,
    default_space,
    settings_of,
)
from finetune_tf.search.study import identity_of

optuna = pytest.importorskip("optuna")


def proposed(space, **params):
    return settings_of(optuna.trial.FixedTrial(params), checked_space(space, {}))


def test_lists_ranges_and_bounds():
    space = {"epochs": range(2, 5), "learning_rate": ft.between(1e-5, 1e-3), "batch_size": [8, 16]}
    settings = proposed(space, epochs="3", learning_rate=3.14159e-4, batch_size="16")
    assert settings == {"learning_rate": 3.14e-4, "batch_size": 16, "epochs": 3}
    assert combinations(checked_space(space, {})) == float("inf")
    assert combinations({"epochs": Choice((1, 2)), "batch_size": Choice((1, 2, 3))}) == 6


def test_integers_between_bounds():
    assert proposed({"epochs": ft.between(2, 9)}, epochs=4) == {"epochs": 4}


def test_values_of_each_policy():
    selector = ft.select.head() | ft.select.blocks(-1)
    space = {
        "learning_rate": {"full": ft.between(1e-5, 1e-4), "head": ft.between(1e-3, 1e-2)},
        "policy": ["full", "head"],
    }
    assert proposed(space, **{"policy": "'head'", "learning_rate (head)": 5e-3}) == {
        "policy": "head", "learning_rate": 5e-3
    }  # fmt: skip
    code = "(ft.select.head() | ft.select.blocks(-1))"
    assert as_code(selector) == code
    assert proposed({"policy": ["full", selector]}, policy=code) == {"policy": selector}


def test_the_default_space_leaves_out_what_is_fixed():
    assert list(default_space({})) == ["learning_rate", "batch_size", "epochs"]
    assert list(default_space({"epochs": 3})) == ["learning_rate", "batch_size"]
    # A new head needs a far higher rate than pretrained weights.
    assert default_space({"policy": "head"})["learning_rate"].low > 1e-4
    for fixed in ({}, {"policy": "head"}):
        assert checked_space(default_space(fixed), fixed)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space must be a dict of what to search, such as"),
        ([("epochs", [1])], "space must be a dict of what to search, such as"),
        ({"lr": [1e-4]}, "space: 'lr' cannot be searched. Did you mean 'learning_rate'?"),
        ({"colour": [1]}, "space: 'colour' cannot be searched. These can: policy, learning_rate"),
        ({"seed": [1]}, "space: 'seed' cannot be searched. These can: "),
        ({"epochs": []}, "space: epochs must be a list of values, such as [16, 32], a range, or"),
        ({"epochs": 3}, "space: epochs must be a list of values, such as [16, 32], a range, or"),
        # Two numbers in a tuple could be meant as bounds.
        ({"learning_rate": (1e-5, 1e-4)}, "space: learning_rate must be a list of values, such"),
        ({"epochs": [0, 1]}, "epochs must be an integer >= 1, found 0."),
        ({"epochs": ft.between(1.5, 3)}, "epochs must be an integer >= 1, found 1.5."),
        ({"learning_rate": ft.between(-1.0, 1.0)}, "learning_rate must be a number > 0 or 'auto'"),
        ({"batch_size": [8, 8]}, "space: batch_size has the value 8 twice."),
        ({"policy": ["some"]}, "policy must be one of full, head, head-first, a selector"),
        (
            {"pooling": ft.between(0, 1)},
            "space: pooling has no numbers in a range; list its values",
        ),
        ({"dropout": [1.5]}, "dropout must be a number >= 0 and < 1, or None, found 1.5."),
        (
            {"policy": ["full", "head"], "epochs": {"full": [1]}},
            "space: a dict for epochs has values for each policy of the space (full, head), found",
        ),
        (
            {"epochs": {"full": [1]}},
            "space: a dict for epochs has values for each policy of the space (there is none)",
        ),
    ],
)
def test_invalid_spaces(space, message):
    with pytest.raises(ft.errors.ModelError) as caught:
        checked_space(space, {})
    assert str(caught.value).startswith(message)


def test_a_setting_that_is_searched_and_fixed():
    with pytest.raises(ArgumentError, match="epochs is in the space and is also given as epochs=2"):
        checked_space({"epochs": [1, 2]}, {"epochs": 2})


def test_bounds_in_the_wrong_order():
    with pytest.raises(ArgumentError, match=r"between\(low, high\) needs low < high, found 2 and"):
        ft.between(2, 1)
    with pytest.raises(ArgumentError, match="high must be a number, found inf"):
        ft.between(0, float("inf"))


def with_other_weights(model):
    model.set_weights([weight + 1 for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "objective",
    [
        lambda model: ft.objectives.Distillation(model, alpha=0.7),
        lambda model: ft.objectives.L2SP(0.3, anchor=model),
    ],
    ids=["teacher", "anchor"],
)
def test_a_search_depends_on_the_weights_of_other_models(objective):
    train = ft.data.from_arrays(["a film", "a story"], ["good", "bad"])

    def identity(model):
        fixed = {"objectives": [objective(model)], "dropout": 0.1}
        return identity_of("folder", train, None, {}, fixed, 0)["fixed setting"]

    one, same = small_model(), small_model()
    same.set_weights(one.get_weights())
    assert identity(one) == identity(same)
    assert identity(one) != identity(with_other_weights(same))


def test_the_code_of_objectives():
    objectives = [ft.objectives.RDrop(0.5), ft.objectives.Distillation(small_model(), alpha=0.7)]
    assert as_code(objectives) == (
        "[ft.objectives.RDrop(alpha=0.5), ft.objectives.Distillation(teacher, temperature=2.0, "
        "alpha=0.7, hidden=None, hidden_weight=1.0)]"
    )
