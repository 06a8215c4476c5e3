"""Features that keep a state, used together in a fit that is broken off and started again."""

import numpy as np
import pytest
from helpers_combined import COMBINED
from helpers_resume import broken_and_resumed, outcome

import finetune_tf as ft
from finetune_tf import callbacks, objectives, select

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:A learning rate of")]


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("places", [((0, 1), (1, 3)), ((1, "validation"), (2, 2))], ids=str)
def test_combined_features_continue_exactly(name, places, tmp_path):
    make = COMBINED[name]
    with ft.messages.quiet():
        expected = outcome(make)
        last = len(expected.epochs) - 1
        places = [at for at in places if at[0] <= last]
        broken_and_resumed(make, tmp_path, *places, every_steps=1).require_same(expected)


def cached_features_below_an_adapter(checkpoint):
    model = ft.load(checkpoint, labels=["bad", "good"], dropout=0.1)
    ft.adapters.add(model, ft.adapters.LoRA(rank=2, dropout=0.1), select.blocks(-1))
    upper = ft.cache_features(model)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["good", "bad", "film"], 4)) for _ in range(16)]
    train = ft.data.from_arrays(texts, [model.labels[i % len(model.labels)] for i in range(16)])
    upper.compile(**ft.presets.cross_entropy(objectives=[objectives.RDrop(1.0)]))
    batches = train.batches(upper, 4, shuffle=True, seed=1, balance=True)
    return upper, {"x": batches, "epochs": 3, "callbacks": [callbacks.EMA(0.9)]}


def test_adapters_above_cached_features_continue_exactly(tmp_path, tiny_bert):
    def make():
        return cached_features_below_an_adapter(tiny_bert)

    with ft.messages.quiet():
        expected = outcome(make)
        resumed = broken_and_resumed(make, tmp_path, (0, 2), (2, 1), every_steps=1)
        resumed.require_same(expected)
