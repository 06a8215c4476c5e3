"""`tune` searches settings of the recipe; the search is stored, and continues where it ended."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, DataTypeError, MissingExtraError, ModelError
from finetune_tf.search import study as studies
from finetune_tf.search import tuning

optuna = pytest.importorskip("optuna")

# The random models here have no pretrained weights that a high rate could ruin.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")

TESTS = Path(__file__).parents[1]
WORDS = ["good", "fine", "great", "bad", "dull", "poor"]
TEXTS = [f"the {noun} was {a} and {b}" for noun in ("film", "actor") for a in WORDS for b in WORDS]
LABELS = ["yes" if text.split()[3] in WORDS[:3] else "no" for text in TEXTS]
SPACE = {"learning_rate": ft.between(1e-4, 3e-2), "batch_size": [8, 16]}
HEAD = {"policy": "head", "epochs": 2}


@pytest.fixture(scope="module")
def data():
    examples = ft.data.from_arrays(TEXTS, LABELS, name="toy").shuffle(0)
    return examples[:40], examples[40:56], examples[56:]


@pytest.fixture(scope="module")
def searched(tiny_bert, data, tmp_path_factory):
    """A search of two trials, with what it printed."""
    train, validation, test = data
    lines, folder = [], tmp_path_factory.mktemp("searches") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "say", lines.append)
        result = ft.tune(
            tiny_bert, train, validation, test, folder=folder, space=SPACE, trials=2, **HEAD
        )
    return result, lines


@pytest.mark.slow
@pytest.mark.jax
def test_the_best_trial_is_compared_on_the_test_examples(searched, data):
    result, lines = searched
    assert [trial.name for trial in result.trials] == ["default", "1", "2"]
    assert result.metric == "val_accuracy" and result.higher_is_better
    assert result.best.value == max(trial.value for trial in result.trials)
    assert lines[0].startswith("Default settings: val_accuracy 0.")
    assert lines[1].startswith("Trial 1 (learning_rate ")
    text = str(result)
    assert text.startswith("val_accuracy (higher is better) of 2 trials and the default settings:")
    assert "The search ended because all trials were run." in text
    if result.best.number is not None:
        assert [row.name for row in result.comparison.rows] == ["default settings", "best trial"]
        assert result.comparison.texts == len(data[2])
        assert result.lead is result.comparison.rows[1].difference
        assert "which no choice has seen" in text
    json.dumps(result.to_dict())
    assert [axes.get_title(loc="left") for axes in result.plot().axes] == [
        "val_accuracy (higher is better)", "val_accuracy by learning rate",
    ]  # fmt: skip
    written = {path.name for path in result.folder.iterdir()}
    kept = set() if result.best.number is None else {f"trial-{result.best.number}"}
    assert written - {"search.log.lock"} == {"search.log", "features", "default", *kept}


def test_the_features_are_computed_once(searched):
    """The encoder is frozen in all trials, so training and validation examples have one file."""
    result, _ = searched
    assert len(list((result.folder / "features").iterdir())) == 2


@pytest.mark.slow
def test_the_code_repeats_the_best_trial(searched, tiny_bert, data):
    result, _ = searched
    train, validation, _ = data
    code = result.code()
    assert code.startswith(f"ft.finetune(\n    '{tiny_bert}',\n    train,\n    validation,\n")
    names = {"ft": ft, "train": train, "validation": validation}
    with ft.messages.quiet():
        again = eval(code.replace("seed=0", "seed=0, verbose=0"), names)
    assert max(again.history[result.metric]) == pytest.approx(result.best.value)
    texts = data[2].columns["text"]
    for one, other in zip(
        ft.predict(again.model, texts), ft.predict(result.model, texts), strict=True
    ):
        assert one.score == pytest.approx(other.score, abs=1e-5)


@pytest.mark.slow
def test_a_larger_budget_continues_the_search(searched, tiny_bert, data):
    first, _ = searched
    train, validation, _ = data
    result = ft.tune(
        tiny_bert, train, validation, folder=first.folder, space=SPACE, trials=3, **HEAD
    )
    assert [trial.settings for trial in result.trials[:3]] == [
        trial.settings for trial in first.trials
    ]
    assert len(result.trials) == 4
    if result.best.number is not None:
        assert "give test= to measure its lead on untouched data" in str(result)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"train": ft.data.from_arrays(TEXTS[:40], LABELS[:40])}, "training data"),
        ({"validation": ft.data.from_arrays(TEXTS[:9] + TEXTS[-9:], LABELS[:9] + LABELS[-9:])},
         "validation data"),
        ({"space": {"batch_size": [8, 16]}}, "space"),
        ({"epochs": 3}, "fixed setting"),
        ({"seed": 1, "checkpoint": "other"}, "checkpoint and another seed"),
    ],
)  # fmt: skip
def test_another_search_in_the_same_folder(searched, tiny_bert, data, changed, what):
    result, _ = searched
    train, validation, _ = data
    arguments = {"checkpoint": tiny_bert, "train": train, "validation": validation, "space": SPACE}
    with pytest.raises(ArgumentError) as caught:
        ft.tune(**(arguments | HEAD | {"folder": result.folder, "trials": 2} | changed))
    assert str(caught.value) == (
        f"{result.folder} holds a search with another {what}. Choose another folder, or continue "
        "that search with the same arguments as before."
    )


class Outcomes:
    """Stands for `finetune`: quick results by learning rate, so that the search can be tested."""

    def __init__(self, model, values):
        self.model, self.values, self.calls = model, values, []

    def __call__(self, checkpoint, train, validation, *, callbacks, epochs=3, **settings):
        from finetune_tf.recipe.run_folder import FinetuneResult

        (reports,) = callbacks
        self.calls.append({"epochs": epochs, **settings})
        value = self.values(len(self.calls) - 1, settings)
        reports.set_model(self.model)
        reports.set_params({"epochs": epochs})
        reports.on_train_begin()
        history = [value * (epoch + 1) / epochs for epoch in range(epochs)]
        for epoch, result in enumerate(history):
            reports.on_epoch_end(epoch, {"val_accuracy": result})
        return FinetuneResult(self.model, {"val_accuracy": history}, None, {"epochs": epochs})


@pytest.fixture
def tuned(tiny_bert, data, tmp_path, monkeypatch):
    """Calls `tune` with results of `values` in the place of those of training."""
    with ft.messages.quiet():
        model = ft.load(tiny_bert, labels=data[0].labels)

    def tune(values, folder="search", **options):
        outcomes = Outcomes(model, values)
        monkeypatch.setattr(tuning, "finetune", outcomes)
        options = {"space": SPACE, "folder": tmp_path / folder, **options}
        return ft.tune(tiny_bert, data[0], data[1], **options), outcomes.calls

    return tune


def by_rate(number, settings):
    """The best result is at a learning rate of 1e-3."""
    rate = settings.get("learning_rate", 1e-2)
    return 0.9 - 0.1 * abs(np.log10(rate / 1e-3))


@pytest.mark.slow
def test_the_search_finds_a_good_rate(tuned):
    result, calls = tuned(by_rate, trials=15)
    assert len(result.trials) == 16 and len(calls) == 16
    assert 5e-4 < result.best.settings["learning_rate"] < 2e-3
    assert "learning_rate" not in calls[0]
    states = {trial.state for trial in result.trials}
    assert states == {"finished", "stopped early"}
    for trial in result.trials:
        rate = trial.settings.get("learning_rate", 1e-2)
        assert float(f"{rate:.3g}") == rate  # can be typed


@pytest.mark.slow
def test_a_search_proposes_the_same_after_an_interruption(tuned):
    whole, _ = tuned(by_rate, folder="whole", trials=6)

    def interrupted(number, settings):
        if number == 3:
            raise KeyboardInterrupt
        return by_rate(number, settings)

    with pytest.raises(KeyboardInterrupt):
        tuned(interrupted, folder="parts", trials=6)
    again, calls = tuned(by_rate, folder="parts", trials=6)
    assert len(calls) == 4  # the default settings and two trials were stored
    assert [trial.settings for trial in again.trials] == [t.settings for t in whole.trials]


@pytest.mark.slow
def test_a_trial_that_fails_is_recorded_and_skipped(tuned, capsys):
    def failing(number, settings):
        if number == 2:
            raise ModelError("The loss is nan at step 3 of epoch 1.")
        if number == 3:
            raise MemoryError
        return by_rate(number, settings)

    result, _ = tuned(failing, trials=4)
    assert [trial.state for trial in result.trials][2:4] == ["failed", "failed"]
    assert result.trials[2].value is None
    assert "Trial 2 failed: The loss is nan at step 3 of epoch 1." in str(result)
    assert "): failed: The loss is nan at step 3 of epoch 1.." in capsys.readouterr().out
    assert "Trial 3 failed: MemoryError" in str(result)


def test_default_settings_that_fail_end_the_search(tuned):
    def failing(number, settings):
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        tuned(failing, trials=2)


@pytest.mark.slow
def test_all_combinations_of_a_small_space(tuned):
    result, calls = tuned(by_rate, space={"batch_size": [8, 16], "epochs": [1, 2]}, trials=50)
    assert len(calls) == 5
    assert "All 4 combinations of the space were tried." in str(result)
    assert len({str(trial.settings) for trial in result.trials}) == 5


@pytest.mark.slow
def test_no_trial_is_better_than_the_default_settings(tuned):
    result, _ = tuned(lambda number, settings: 0.9 if number == 0 else 0.5, trials=2)
    assert result.best.number is None and result.comparison is None
    assert "No trial had a better val_accuracy than the default settings." in str(result)
    assert {path.name for path in result.folder.glob("trial-*")} == set()


@pytest.mark.slow
def test_the_time_ends_a_search(tuned):
    def slow(number, settings):
        time.sleep(0.3)
        return by_rate(number, settings)

    result, calls = tuned(slow, minutes=0.1 / 60, trials=9)
    assert len(calls) == 1  # the default settings run in any case
    assert "The search ended because the time was over." in str(result)
    result, calls = tuned(slow, minutes=0.1 / 60, trials=9)
    assert [trial.state for trial in result.trials][1:] == ["stopped early"]


@pytest.mark.slow
def test_a_journal_that_ends_in_the_middle_of_a_line(tuned, tmp_path):
    tuned(by_rate, trials=2)
    journal = tmp_path / "search" / studies.JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    result, _ = tuned(by_rate, trials=3)
    assert len(result.trials) == 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({}, ArgumentError, "tune needs a budget: minutes=…, trials=…, or both."),
        ({"trials": 1, "folder": None}, ArgumentError, "tune needs folder=…, where the search is"),
        ({"minutes": 0}, ArgumentError, "minutes must be a number > 0 or None, found 0."),
        ({"trials": 0}, ArgumentError, "trials must be an integer >= 1 or None, found 0."),
        ({"trials": 1, "space": {}}, ArgumentError, "space must be a dict of what to search"),
        ({"trials": 1, "train": ["a"]}, DataTypeError, "train= must be Examples, found ['a']."),
        ({"trials": 1, "lr": 1}, ArgumentError, "tune() has no argument 'lr'."),
        ({"trials": 1, "callbacks": ()}, ArgumentError, "tune() has no argument 'callbacks'."),
    ],
)
def test_wrong_arguments(call, error, message, data, tmp_path):
    with pytest.raises(error) as caught:
        ft.tune(**{"checkpoint": "none", "train": data[0], "folder": tmp_path, **call})
    assert str(caught.value).startswith(message)


def test_without_optuna(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-tf\[search\]'"):
        ft.tune("none", data[0], folder=tmp_path, trials=1)


SCRIPT = """
    import sys
    import numpy as np
    import finetune_tf as ft
    TEXTS, LABELS = {texts!r}, {labels!r}
    train = ft.data.from_arrays(TEXTS, LABELS)
    result = ft.tune(
        {checkpoint!r}, train, train, folder=sys.argv[1], trials=3, policy="head", epochs=2,
        space={{"learning_rate": ft.between(1e-4, 3e-2)}},
    )
    print("RESULT", [(trial.settings, trial.value) for trial in result.trials])
"""


@pytest.mark.slow
def test_a_process_that_is_killed(tiny_bert, tmp_path):
    """It is killed in the middle of a trial; the same call then ends like one never killed."""
    code = SCRIPT.format(texts=TEXTS, labels=LABELS, checkpoint=str(tiny_bert))
    command = [sys.executable, "-W", "ignore", "-u", "-c", textwrap.dedent(code)]

    def run(folder, kill_after=None):
        process = subprocess.Popen(
            [*command, str(tmp_path / folder)], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, cwd=TESTS.parent,
        )  # fmt: skip
        found = []
        for line in process.stdout:
            found.append(line)
            if kill_after and line.startswith(kill_after):
                time.sleep(0.5)
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
        return found

    assert not any(line.startswith("RESULT") for line in run("killed", "Trial 1"))
    again, whole = run("killed"), run("whole")
    assert again[-1] == whole[-1] and whole[-1].startswith("RESULT")
