import inspect
import json

import keras
import pytest

import finetune_tf as ft
from finetune_tf.recipe import FinetuneResult, recipe

# The toy model has random weights, so a high learning rate cannot damage pretrained weights.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")

GOOD = ["a very good film", "the actor was great", "a fine story", "good and great"]
BAD = ["a very bad film", "the actor was poor", "a dull story", "bad and poor"]
# A split keeps copies of a text on one side, so a number makes each text unique.
TEXTS = [f"{text} {i}" for texts in (GOOD, BAD) for i in range(6) for text in texts]


@pytest.fixture
def reviews():
    return ft.data.from_arrays(TEXTS, ["good"] * 24 + ["bad"] * 24, name="toy")


def test_finetune_trains_evaluates_and_saves_a_run(tiny_bert, reviews, tmp_path, capsys):
    result = ft.finetune(
        tiny_bert, reviews, test=reviews[::3], epochs=10, batch_size=8, learning_rate=1e-2
    )

    assert result.report.metrics["accuracy"] > 0.9
    assert result.report.baseline.name == "tfidf"
    assert len(result.history["loss"]) == 10
    assert result.history["loss"][-1] < result.history["loss"][0]
    printed = capsys.readouterr().out
    assert "Device: CPU (tensorflow); precision: " in printed
    assert "test texts also occur in the training examples" in printed

    folder = result.save(tmp_path / "run")
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "checkpoint", "settings.json", "history.json", "history.png",
        "report.json", "report.txt", "report.html", "report.png",
    }  # fmt: skip
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["epochs"] == 10 and settings["train"] == "toy" and settings["policy"] == "full"
    again = ft.load(folder / "checkpoint")
    assert ft.predict(again, "a very good film") == ft.predict(result.model, "a very good film")
    card = (folder / "checkpoint" / "README.md").read_text()
    assert "toy (43 texts)" in card and "| accuracy |" in card


def test_the_report_has_the_seed_of_the_call(tiny_bert, reviews, monkeypatch):
    found = {}
    monkeypatch.setattr(recipe, "evaluate", lambda *_, **options: found.update(options))
    ft.finetune(tiny_bert, reviews, reviews, reviews, policy="head", epochs=1, seed=7, verbose=0)
    assert found["seed"] == 7


def test_a_report_of_earlier_weights_is_not_saved(tiny_bert, reviews, tmp_path, capsys):
    model = ft.load(tiny_bert, labels=reviews.labels)
    result = FinetuneResult(model, {}, ft.evaluate(model, reviews), {})
    assert (result.save(tmp_path / "before") / "report.json").exists()
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4, schedule="constant"))
    model.train_on_batch(*next(iter(reviews.batches(model, 4))))
    assert not (result.save(tmp_path / "after") / "report.json").exists()
    assert "so the report is not saved. Evaluate it again" in capsys.readouterr().out
    result.report = ft.evaluate(model, reviews)
    assert (result.save(tmp_path / "again") / "report.json").exists()


@pytest.mark.parametrize(
    ("objective", "packing"), [(ft.objectives.RDrop(), False), (ft.objectives.L2SP(), "auto")]
)
def test_auto_packs_only_for_objectives_that_allow_it(
    objective, packing, tiny_bert, reviews, monkeypatch
):
    found = []

    def batches(self, model, *args, **options):
        found.append(options["packing"])
        raise KeyboardInterrupt

    monkeypatch.setattr(ft.data.Examples, "batches", batches)
    with pytest.raises(KeyboardInterrupt):
        ft.finetune(tiny_bert, reviews, reviews, packing="auto", objectives=[objective], verbose=0)
    assert found == [packing]


@pytest.mark.slow
def test_head_first_trains_the_head_and_then_everything(tiny_bert, reviews, capsys):
    result = ft.finetune(
        tiny_bert, reviews, reviews, policy="head-first", epochs=1, pooling="mean", batch_size=16
    )

    counts = [
        line for line in capsys.readouterr().out.splitlines() if "parameters are trainable" in line
    ]
    total = ft.count_parameters(result.model)[1]
    assert counts == [
        f"50 of {total:,} parameters are trainable.",
        f"{total:,} of {total:,} parameters are trainable.",
    ]
    assert len(result.history["val_accuracy"]) == 2
    assert result.report is None


@pytest.mark.slow
def test_the_learning_rate_applies_to_the_last_phase(tiny_bert, reviews):
    class Rates(keras.callbacks.Callback):
        peaks = []

        def on_train_begin(self, logs=None):
            self.peaks.append(self.model.optimizer._learning_rate.peak)

    ft.finetune(
        tiny_bert, reviews, reviews, policy="head-first", epochs=1, learning_rate=3e-5,
        callbacks=(Rates(),),
    )  # fmt: skip

    assert Rates.peaks == ["auto", 3e-5]


@pytest.mark.slow
@pytest.mark.parametrize("keep, epoch", [("best", 0), ("last", 2)])
def test_keep_selects_the_weights_of_the_best_or_last_epoch(tiny_bert, reviews, keep, epoch):
    biases = []

    class FirstIsBest(keras.callbacks.Callback):
        def on_epoch_end(self, number, logs):
            logs["val_accuracy"] = 1.0 if number == 0 else 0.5
            biases.append(self.model.get_layer("classifier").dense.bias.numpy().tolist())

    result = ft.finetune(
        tiny_bert, reviews, reviews, epochs=3, learning_rate=1e-2, keep=keep,
        callbacks=(FirstIsBest(),),
    )  # fmt: skip

    kept = result.model.get_layer("classifier").dense.bias.numpy().tolist()
    assert biases.index(kept) == epoch
    assert result.settings["keep"] == keep


@pytest.mark.slow
def test_a_callback_that_only_reads_the_logs_leaves_the_cache_on(tiny_bert, reviews):
    class Reads(keras.callbacks.Callback):
        needs_whole_model = False

        def on_train_begin(self, logs=None):
            self.fitted = type(self.model).__name__

    reads, needs = Reads(), Reads()
    needs.needs_whole_model = True
    for callbacks in ((reads,), (needs,)):
        ft.finetune(
            tiny_bert, reviews, reviews, policy="head", epochs=1, callbacks=callbacks, verbose=0
        )
    assert (reads.fitted, needs.fitted) == ("FeatureModel", "FineTuneModel")


def test_keep_is_best_or_last(tiny_bert, reviews):
    with pytest.raises(ft.errors.ModelError, match="'best' or 'last', found 'first'"):
        ft.finetune(tiny_bert, reviews, keep="first")


@pytest.mark.slow
def test_label_smoothing_reaches_the_loss(tiny_bert, reviews):
    result = ft.finetune(tiny_bert, reviews, reviews, epochs=1, label_smoothing=0.2)

    assert result.model.loss.label_smoothing == 0.2
    assert result.settings["label_smoothing"] == 0.2


@pytest.mark.slow
def test_objectives_belong_to_the_last_phase(tiny_bert, reviews):
    noise = ft.objectives.NEFTune(5.0)
    result = ft.finetune(tiny_bert, reviews, reviews, epochs=1, objectives=noise)

    assert result.model.objectives == (noise,)
    assert result.settings["objectives"] == ["NEFTune(alpha=5.0)"]


def test_what_is_no_objective_is_refused(tiny_bert, reviews):
    with pytest.raises(
        ft.errors.ModelError, match="a list of objectives such as .*, found 'rdrop'"
    ):
        ft.finetune(tiny_bert, reviews, objectives=["rdrop"])


def test_label_smoothing_needs_single_label_classification(tiny_bert):
    scores = ft.data.from_arrays(GOOD + BAD, [2.5] * 4 + [0.5] * 4, name="toy")

    with pytest.raises(ft.errors.ModelError, match="but this task is regression"):
        ft.finetune(tiny_bert, scores, label_smoothing=0.1)


@pytest.mark.slow
def test_a_selector_is_a_policy(tiny_bert, reviews):
    result = ft.finetune(
        tiny_bert, reviews, reviews, policy=ft.select.head() | ft.select.biases(), epochs=1
    )

    frozen = [v for v in result.model.weights if not v.trainable]
    assert {v.path.rsplit("/")[-1] for v in frozen} == {"kernel", "gamma", "embeddings"}


def test_an_unknown_policy_raises_an_error_with_the_known_ones(tiny_bert, reviews):
    with pytest.raises(ft.errors.ModelError, match="one of full, head, head-first, a selector"):
        ft.finetune(tiny_bert, reviews, policy="everything")


@pytest.mark.slow
def test_regression_reports_pearson(tiny_bert):
    scores = [2.5] * 24 + [0.5] * 24
    train = ft.data.from_arrays(TEXTS, scores, name="toy")

    result = ft.finetune(
        tiny_bert, train, test=train[::3], epochs=30, batch_size=8, learning_rate=3e-3
    )

    assert result.report.metrics["pearson"] > 0.9
    assert result.report.baseline.name == "ridge"


@pytest.mark.slow
def test_custom_phases(tiny_bert, reviews, capsys):
    policy = (ft.select.head(), ~ft.select.embeddings())
    result = ft.finetune(tiny_bert, reviews, reviews, policy=policy, epochs=2)

    assert len(result.history["loss"]) == 1 + 2
    told = [
        line for line in capsys.readouterr().out.splitlines() if "parameters are trainable" in line
    ]
    assert len(told) == 2
    assert not any(v.trainable for v in result.model.stages[0].variables)


def test_test_labels_are_checked_before_the_fit(tiny_bert, reviews):
    test = ft.data.from_arrays(["good", "bad"], ["fine", "poor"], name="other labels")

    with pytest.raises(ft.errors.DataError, match="other labels has the label 'fine'"):
        ft.finetune(tiny_bert, reviews, reviews, test, callbacks=(Never(),))


class Never(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise AssertionError("the fit began")


def test_a_path_in_place_of_examples(tiny_bert):
    with pytest.raises(ft.errors.DataTypeError, match="train= must be Examples, found 'train.csv'"):
        ft.finetune(tiny_bert, "train.csv")


@pytest.mark.slow
def test_the_default_precision_is_that_of_load(tiny_bert, reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("finetune_tf.training.devices._cpu_flags", lambda: {"amx_bf16"})
    defaults = [
        inspect.signature(function).parameters["dtype"].default
        for function in (ft.load, ft.finetune)
    ]
    assert defaults == [None, None]
    short = {"policy": "head", "epochs": 1, "batch_size": 16, "verbose": 0}
    result = ft.finetune(tiny_bert, reviews, reviews, **short)

    assert result.settings["dtype"] == "float32"
    assert (
        "Device: CPU (tensorflow); precision: float32. dtype='auto' computes in mixed_bfloat16, "
        "which is faster on this device.\n"
    ) in capsys.readouterr().out
    again = ft.load(result.save(tmp_path / "run") / "checkpoint")
    assert ft.predict(again, "a good film") == ft.predict(result.model, "a good film")

    result = ft.finetune(tiny_bert, reviews, reviews, **short, dtype="auto")
    assert result.settings["dtype"] == "mixed_bfloat16"
    assert "precision: mixed_bfloat16.\n" in capsys.readouterr().out
