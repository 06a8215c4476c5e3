"""Numeric arguments of public functions: each one has a range, and each range is checked."""

import functools
import inspect
import math
import types
from typing import get_args

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf import (
    compat,
    data,
    evaluation,
    fewshot,
    meta,
    objectives,
    presets,
    select,
    training,
)
from finetune_tf.base.arguments import RULES, check
from finetune_tf.errors import ArgumentError
from finetune_tf.tasks import get_task
from finetune_tf.training import AdamW, callbacks

MODULES = (ft, data, presets, select, objectives, callbacks, training, evaluation, compat, meta)
MODULES += (fewshot,)
WRONG = [-1, 0, 1.5, math.nan, math.inf, -math.inf, "3", True, None, [1], np.float32("nan")]

# Classes and methods that users do not call: results of the library, and hooks.
RESULTS = {"Candidate", "Comparison", "CurvePoint", "Entity", "FinetuneResult"}
RESULTS |= {"Adapted", "Episode", "EpisodeReport", "Episodes"}  # of meta-learning
RESULTS |= {"InterpolationCurve", "Prediction", "Report", "CurveCell", "LearningCurve"}
HOOKS = {"bind"}  # called by BindSchedule
# Functions of transformers 4 that pass a number to the function that checks it.
PASSED_ON = {"AdamWeightDecay": "AdamW", "TFPreTrainedModel.resize_token_embeddings": None}
# `labels` has many forms besides a number, which Labels.of checks; Keras checks `index`. Each of
# `shares` is checked as `share`, each of `rates` as `rate_factor`, `blocks` by `keep_blocks`, and
# `shots` by `learning_curve`.
OTHERS = {"labels", "index", "sheet", "shares", "rates", "blocks", "shots"}


def is_number(parameter):
    """Whether a parameter is a number, by its type or its default."""
    if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
        return True
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    return any(kind in (int, float) for kind in kinds)


def functions_of(thing):
    """Yields (class, function) for a function, or for a class's constructor and public methods."""
    if inspect.isclass(thing):
        for name, member in vars(thing).items():
            if name == "__init__" or not name.startswith(("_", "on_")):
                yield thing, getattr(member, "__func__", member)
    else:
        yield None, thing


def public_numbers():
    """Returns (class, function, parameter) of each numeric public argument by its location."""
    seen = {}
    for module in MODULES:
        for name in getattr(module, "__all__", None) or dir(module):
            thing = getattr(module, name)
            if not getattr(thing, "__module__", "").startswith("finetune_tf"):
                continue
            if isinstance(thing, types.ModuleType) or not callable(thing):
                continue
            if name in RESULTS or name.startswith("_"):
                continue
            for owner, function in functions_of(thing):
                if not inspect.isfunction(function) or function.__name__ in HOOKS:
                    continue
                if PASSED_ON.get(function.__qualname__, "") is None:
                    continue
                for parameter in inspect.signature(function).parameters.values():
                    if is_number(parameter) and parameter.name not in OTHERS:
                        where = f"{function.__module__}.{function.__qualname__}({parameter.name})"
                        seen[where] = (owner, function, parameter)
    return seen


NUMBERS = public_numbers()


def rule_of(owner, function, parameter):
    """Returns the rule of a parameter in its class, or else the general rule."""
    name = (owner or function).__name__
    own = f"{PASSED_ON.get(name, name)}.{parameter.name}"
    return RULES.get(own) or RULES.get(parameter.name)


def test_the_search_finds_the_arguments():
    """A new argument needs a row in RULES and a call of `check`."""
    found = {where.removeprefix("finetune_tf.") for where in NUMBERS}
    assert len(found) > 60
    for place in (
        "recipe.recipe.finetune(epochs)",
        "data.examples.Examples.split(fraction)",
        "training.presets.make_optimizer(clip_norm)",
        "training.optimizers.AdamW.__init__(weight_decay)",
        "training.select.blocks(stop)",
        "compat.training.create_optimizer(adam_beta2)",
        "model.loading.load(dropout)",
    ):
        assert place in found
    without = [where for where, number in NUMBERS.items() if rule_of(*number) is None]
    assert not without, f"no rule in finetune_tf.base.arguments.RULES for {without}"


@pytest.mark.parametrize("where", NUMBERS)
def test_a_number_out_of_range_raises_an_error(where):
    owner, function, parameter = NUMBERS[where]
    rule = rule_of(owner, function, parameter)
    optional = parameter.default is None
    for wrong in WRONG:
        if rule.accepts(wrong) or (wrong is None and optional):
            continue
        given = {
            name: object()
            for name, other in inspect.signature(function).parameters.items()
            if other.default is other.empty and other.kind is other.POSITIONAL_OR_KEYWORD
        }
        call = function
        if function.__name__ == "__init__":
            del given["self"]
            call = owner
        elif "self" in given:  # a method gets its object as any call does, without a name
            owned = small_model() if issubclass(owner, ft.FineTuneModel) else object()
            call = functools.partial(function, owned)
            del given["self"]
        valid = {"steps": 1, "peak": 1.0, "power": 1.0, "fraction": 0.5, "n": 1, "start": 0}
        valid |= {"num_train_steps": 10, "init_lr": 1e-4, "warmup_steps": 1}
        valid |= {"initial_learning_rate": 1e-4, "low": 0, "high": 1}
        given = {name: valid.get(name, value) for name, value in given.items()}
        given[parameter.name] = wrong
        with pytest.raises(ArgumentError) as caught:
            call(**given)
        text = str(caught.value)
        assert text.endswith(f", found {wrong!r}."), (wrong, text)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("clip_norm", wrong) for wrong in (-1, 0, math.inf, "1", True)),
        *(("weight_decay", wrong) for wrong in (-0.1, math.inf, math.nan, None)),
        *(("accumulate", wrong) for wrong in (0, 1.5, True)),
        *(("warmup_ratio", wrong) for wrong in (-0.1, 1, math.nan)),
        *(("warmup_steps", wrong) for wrong in (-1, math.inf, "10")),
        *(("learning_rate", wrong) for wrong in (0, -1, math.nan, math.inf, True, "fast")),
    ],
)
@pytest.mark.parametrize("preset", ["cross_entropy", "mean_squared_error", "similarity"])
def test_options_of_presets(preset, name, wrong):
    with pytest.raises(ArgumentError, match=f"^{name} must be an? "):
        getattr(ft.presets, preset)(**{name: wrong})


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"])
@pytest.mark.parametrize("wrong", [-1, 0, math.nan, math.inf, "1", True])
def test_adamw_checks_the_arguments_of_keras_optimizers(name, wrong):
    with pytest.raises(ArgumentError, match=f"^{name} must be a number > 0 or None, found"):
        AdamW(**{name: wrong})


@pytest.mark.parametrize(
    ("task", "method", "option"),
    [
        ("fill-mask", "encode", "mask_rate"),
        ("question-answering", "encode", "stride"),
        ("question-answering", "describe", "null_threshold"),
        ("question-answering", "describe", "max_answer_length"),
    ],
)
def test_options_of_tasks(task, method, option):
    task = get_task(task)
    assert option in (*task.encode_options, *task.options)
    arguments = [object(), object(), 8] if method == "encode" else [object()] * 3
    for wrong in (math.nan, math.inf, "3", True):
        with pytest.raises(ArgumentError, match=f"^{option} must be an? "):
            getattr(task, method)(*arguments, **{option: wrong})


TOKENS, ANSWERS = token_batch(8)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.parametrize(
    ("method", "name", "wrong"),
    [
        *(("fit", "batch_size", wrong) for wrong in (0, -3, 16.0, True, "8", math.nan)),
        *(("evaluate", "batch_size", wrong) for wrong in (0, -3, 16.0)),
        *(("predict", "batch_size", wrong) for wrong in (0, -3, 16.0)),
        *(("fit", "epochs", wrong) for wrong in (0, -1, 2.5, None, "3")),
        ("fit", "initial_epoch", -1),
        ("fit", "steps_per_epoch", 0),
        ("fit", "validation_split", 1.5),
        ("fit", "validation_batch_size", 0),
        ("fit", "validation_steps", 0),
        ("evaluate", "steps", -1),
        ("predict", "steps", 0),
    ],
)
def test_numbers_of_keras_methods(model, method, name, wrong):
    data = (TOKENS,) if method == "predict" else (TOKENS, ANSWERS)
    with pytest.raises(ArgumentError, match=f"^{name} must be an? .*, found {wrong!r}"):
        getattr(model, method)(*data, **{name: wrong})


def test_numbers_of_keras_methods_by_position(model):
    with pytest.raises(ArgumentError, match=r"batch_size must be .* found -1\."):
        model.fit(TOKENS, ANSWERS, -1)
    with pytest.raises(ArgumentError, match=r"epochs must be .* found 0\."):
        model.fit(TOKENS, ANSWERS, 8, 0)
    with pytest.raises(ArgumentError, match=r"batch_size must be .* found 0\."):
        model.predict(TOKENS, 0)
    with pytest.raises(ArgumentError, match=r"steps_per_execution must be .* found 0\."):
        model.compile(steps_per_execution=0)


def test_numpy_scalars_and_large_integers_are_numbers():
    check(batch_size=np.int64(8), weight_decay=np.float32(0.5), weight_decay_rate=10**400)
    assert AdamW(np.float32(1e-3)).decay == 0.01
    assert AdamW(1).learning_rate == 1.0


def test_messages_contain_range_and_value():
    for arguments, message in (
        ({"seed": -1}, "seed must be an integer >= 0 and <= 4,294,967,295, found -1."),
        ({"fraction": 1}, "fraction must be a number > 0 and < 1, found 1."),
        ({"start": 1.5}, "start must be an integer, found 1.5."),
        ({"Warmup.peak": "auto"}, "peak must be a number > 0, found 'auto'."),
        ({"max_length": 0}, "max_length must be an integer >= 1 or None, found 0."),
        (
            {"keras.batch_size": 2**31},
            "batch_size must be an integer >= 1 and <= 2,147,483,647, or None, found 2147483648.",
        ),
    ):
        with pytest.raises(ArgumentError) as caught:
            check(**arguments)
        assert str(caught.value) == message


def test_the_current_rate_of_an_optimizer_may_be_zero():
    """At the end of a decay it is 0, and freezing recreates the optimizer from its config."""
    assert float(AdamW(0.0).learning_rate) == 0.0
    schedule = keras.optimizers.schedules.PolynomialDecay(1e-4, 10)
    assert AdamW(schedule)._learning_rate is schedule
