"""A fit that is broken off and started again ends like one that was not, bit for bit."""

import numpy as np
import pytest
from helpers_models import ENGLISH
from helpers_resume import CASES, Broken, broken_and_resumed, on_arrays, outcome, preset

import finetune_tf as ft
from finetune_tf.callbacks import Resume

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


def films(rows=20):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(ENGLISH, random.integers(2, 9))) for _ in range(rows)]
    return ft.data.from_arrays(texts, ["good" if i % 3 else "bad" for i in range(rows)])


#: Those that `make jax` runs as well.
FAST = ("accumulation", "averages", "early stopping", "shuffled arrays", "unfreezing")
PLACES = [((0, 1),), ((0, 3), (1, 0)), ((1, 3), (2, 4)), ((1, "validation"), (2, 2))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.jax if n in FAST else ()) for n in CASES]
)
def test_a_broken_fit_ends_like_a_whole_one(name, tmp_path):
    """The places depend on the name, so that all of them occur."""
    make = CASES[name]
    expected = outcome(make)
    places = PLACES[sum(map(ord, name)) % len(PLACES)]
    if name == "three steps at once":
        places = ((0, 3), (2, 3))
    elif name in ("without validation", "validation split"):
        places = ((1, 3), (1, "epoch end"))
    elif name == "early stopping":
        places = ((1, 3),)
    broken_and_resumed(make, tmp_path, *places).require_same(expected)


@pytest.mark.slow
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CASES)
def test_every_case_at_every_place(name, places, tmp_path):
    make = CASES[name]
    known = [
        at for at in places
        if not (name == "three steps at once" and at[1] not in (0, 3, "validation"))
        and not (name in ("without validation", "validation split") and at[1] == "validation")
        and not (name == "early stopping" and at[0] > 1)
        and not (name == "validation split" and at[1] == 4)
    ]  # fmt: skip
    broken_and_resumed(make, tmp_path, *known).require_same(outcome(make))


@pytest.mark.slow
def test_a_fit_without_breaks_is_not_changed_by_the_callback(tmp_path):
    make = CASES["best weights"]
    outcome(make, tmp_path, every_steps=1).require_same(outcome(make))


@pytest.mark.slow
def test_a_finished_fit_returns_at_once(tmp_path, capsys):
    make = CASES["early stopping"]
    expected = outcome(make, tmp_path)
    assert len(expected.epochs) < 6
    capsys.readouterr()
    again = outcome(make, tmp_path)
    again.require_same(expected)
    assert (
        f"The run in {tmp_path}/fit-1 is finished after epoch {len(expected.epochs)}; nothing is "
        "trained.\n" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_a_fit_that_is_broken_off_at_its_end_repeats_its_end(tmp_path):
    make = CASES["early stopping"]
    expected = outcome(make)
    last = len(expected.epochs) - 1
    broken_and_resumed(make, tmp_path, (last, "end")).require_same(expected)


@pytest.mark.slow
def test_two_fits_in_a_row_have_saves_of_their_own(tmp_path):
    def run(folder=None, at=None):
        results = []

        def twice():
            model, fit = on_arrays(epochs=2)
            callbacks = [] if folder is None else [Resume(folder, every_steps=2)]
            model.fit(**fit, callbacks=callbacks, verbose=0)
            results.append([variable.numpy() for variable in model.variables])
            if folder is not None:
                fit["callbacks"] = [Resume(folder, every_steps=2)]
            return model, fit

        return outcome(twice, None, at), results

    expected, (first,) = run()
    with pytest.raises(Broken):
        run(tmp_path, (1, 3))
    resumed, (again,) = run(tmp_path)
    resumed.require_same(expected)
    assert all(map(np.array_equal, first, again))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit-1", "fit-2"]


class TestBatches:
    """Batches of examples, whose cursor is moved to the place."""

    @pytest.mark.parametrize("at", [(1, 3), (1, "validation")])
    @pytest.mark.slow
    def test_a_bert_with_dropout(self, at, tmp_path, tiny_bert):
        train = films()

        def make():
            model = ft.load(tiny_bert, labels=train.labels, dropout=0.2)
            model.compile(**preset(learning_rate=1e-3, accumulate=2))
            batches = train.batches(model, 4, shuffle=True, seed=1)
            validation = train.batches(model, 4, shuffle=True, seed=2)
            return model, {"x": batches, "validation_data": validation, "epochs": 2}

        with ft.messages.quiet():
            broken_and_resumed(make, tmp_path, at).require_same(outcome(make))
