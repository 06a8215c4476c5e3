"""Trains models on one and on several logical CPU devices: python -m helpers_devices 4 CASE …

TensorFlow takes the number of its devices when it starts, and all groups of devices of a process
have to be of one size, hence a process for each number.
"""

import sys
import tempfile
from pathlib import Path

import tensorflow as tf

DEVICES = int(sys.argv[1])
PARTS = [tf.config.LogicalDeviceConfiguration()] * DEVICES
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], PARTS)

import keras  # noqa: E402
import numpy as np  # noqa: E402
from helpers_decoders import write_decoder  # noqa: E402
from helpers_models import write_checkpoint  # noqa: E402
from helpers_tasks import CASES as TASKS  # noqa: E402
from helpers_tasks import VOCABULARY, small_task_model  # noqa: E402

import finetune_tf as ft  # noqa: E402
from finetune_tf.fewshot import PairCosines  # noqa: E402
from finetune_tf.training.similarity_loss import PairSimilarity  # noqa: E402

ROWS, LENGTH = 27, 6
FOLDER = Path(tempfile.mkdtemp())
WORDS = ["a good film", "a dull story", "the actor was great and the story good", "bad", "fine"]
TEXTS = [f"{first} {second}" for first in WORDS for second in WORDS] + ["good", "not a bad film"]
ADAMW = {"learning_rate": 1e-2, "clip_norm": 0.1}
CASES = {}


def case(function):
    """Adds a case: a function that, in the scope of a strategy, returns a model and its data."""
    CASES[function.__name__] = function
    return function


def random(seed=0):
    return np.random.default_rng(seed)


def rows(task="two labels", batch=10, loss=None, **options):
    """A small model of a task, and 27 rows in batches of 10, 10 and 7."""
    model = small_task_model(task)
    preset = {"several": "binary_cross_entropy", "number": "mean_squared_error"}
    preset = getattr(ft.presets, preset.get(model.kind, "cross_entropy"))
    model.compile(**{**preset(**ADAMW), **({} if loss is None else {"loss": loss}), **options})
    ids = random().integers(5, VOCABULARY, (ROWS, LENGTH)).astype("int32")
    mask = (np.arange(LENGTH) < random(1).integers(1, LENGTH + 1, (ROWS, 1))).astype("int32")
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    outputs = len(TASKS[task][1] or ()) or VOCABULARY
    targets = {
        "one label": random(2).integers(0, outputs, ROWS),
        "two labels": random(2).integers(0, outputs, ROWS),
        "several labels": random(2).integers(0, 2, (ROWS, outputs)).astype("float32"),
        "number": random(2).normal(0, 1, ROWS).astype("float32"),
        "answers": random(2).integers(0, 1, (ROWS, 2)),
    }
    tokens = np.where(mask > 0, random(2).integers(0, outputs, mask.shape), -100)
    return model, {"x": inputs, "y": targets.get(task, tokens), "batch_size": batch}


def weighted(fitted, *shape):
    model, data = fitted
    return model, {**data, "sample_weight": random(3).uniform(0, 3, (ROWS, *shape))}


@case
def two_labels():
    counts = keras.metrics.TruePositives(), keras.metrics.AUC()
    return rows(metrics=["accuracy", *counts])


@case
def uneven_first_batch():
    return rows("one label", batch=9)


@case
def fewer_rows_than_devices():
    return rows("tokens", batch=13)  # 13, 13 and 1


@case
def tokens():
    return rows("tokens")  # of which devices have different numbers


@case
def words():
    return weighted(rows("words"), LENGTH)


@case
def answers():
    # The bias of the head has no effect on the loss, so its gradient is a rounding error, which
    # AdamW would enlarge.
    return rows("answers", optimizer=ft.presets.make_optimizer("sgd", 0.1, clip_norm=0.1))


@case
def several_labels():
    return weighted(rows("several labels"), 3)


@case
def number():
    return weighted(rows("number"))


@case
def class_weights():
    model, data = weighted(rows("tokens"))
    return model, {**data, "class_weight": {"B-X": 3.0}}


@case
def smoothed():
    return rows("tokens", loss=ft.presets.cross_entropy(label_smoothing=0.1)["loss"])


@case
def focal():
    return rows("tokens", loss=ft.presets.focal()["loss"])


@case
def ordinal():
    return weighted(rows("one label", loss=ft.presets.ordinal()["loss"]))


@case
def shares():
    model, data = rows("one label")
    return model, {**data, "y": random().dirichlet(np.ones(3), ROWS).astype("float32")}


@case
def sums():
    return rows(loss=keras.losses.SparseCategoricalCrossentropy(True, reduction="sum"))


@case
def sums_of_weights():
    reduction = "mean_with_sample_weight"
    return weighted(
        rows(loss=keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction))
    )


@case
def functions_of_a_batch():
    """Functions that return one number for a batch, which Keras does not divide by devices."""

    def worst(targets, logits):
        gaps = keras.ops.square(keras.ops.cast(targets, "float32") - logits[:, 1])
        return keras.ops.max(gaps) + keras.ops.mean(gaps)

    return rows(loss=worst, metrics=[worst])


@case
def rows_compared():
    return rows(loss=PairCosines(), metrics=[PairCosines()])


@case
def pairs():
    return similar(np.zeros((ROWS, 0), "float32"))


@case
def pairs_with_scores():
    scores, weights = random(2).uniform(0, 1, ROWS), random(3).uniform(0, 3, ROWS)
    return similar(scores.astype("float32"), weights.astype("float32"))


def similar(*of_pairs):
    """27 pairs of texts, each of which has two rows, in batches of 9 pairs."""
    loss = PairSimilarity(scale=2.0)
    optimizer = ft.presets.make_optimizer("adamw", **ADAMW)
    model, data = rows("vectors", loss=loss, metrics=[], optimizer=optimizer)
    twice = {name: np.repeat(value, 2, axis=0) for name, value in data["x"].items()}
    twice["input_ids"][1::2] = twice["input_ids"][::-1][::2]
    batches = [
        ({name: value[2 * i : 2 * i + 18] for name, value in twice.items()}, *parts)
        for i in (0, 9, 18)
        for parts in [[values[i : i + 9] for values in of_pairs]]
    ]
    return model, {"batches": keras.tree.map_structure(tf.constant, batches)}


@case
def regularized():
    model, data = rows()
    model.get_layer("block_0").kernel.regularizer = keras.regularizers.L2(0.1)
    return model, data


@case
def l2sp_and_distillation():
    teacher = small_task_model("tokens")
    teacher.set_weights([weight + 0.1 for weight in teacher.get_weights()])
    objectives = ft.objectives.L2SP(0.5), ft.objectives.Distillation(teacher, hidden="last")
    return weighted(rows("tokens", objectives=list(objectives)))


@case
def r_drop_and_contrast():
    objectives = ft.objectives.RDrop(), ft.objectives.SupervisedContrastive(0.5)
    return weighted(rows("one label", objectives=list(objectives)))


def loaded(folder, task, **options):
    model = ft.load(folder, task, dropout=0.0, dtype="float32", **options)
    # Biases of keys have no effect; their gradients are rounding errors, which Adam enlarges.
    model.compile(**ft.presets.cross_entropy("sgd", 0.1, clip_norm=0.1))
    return model


@case
def decoder():
    model = loaded(write_decoder(FOLDER / "gpt2"), "text-generation")
    return model, {"batches": ft.data.from_arrays(TEXTS).batches(model, 10)}


@case
def decoder_packed():
    model = loaded(write_decoder(FOLDER / "gpt2"), "text-generation")
    batches = ft.data.from_arrays(TEXTS).batches(model, 10, shuffle=True, packing=16)
    return model, {"batches": batches}


@case
def encoder_packed():
    examples = ft.data.from_arrays(TEXTS, ["no", "yes", "no"] * 9)
    model = loaded(write_checkpoint(FOLDER / "bert", blocks=1), None, labels=examples.labels)
    return model, {"batches": examples.batches(model, 10, shuffle=True, packing=24)}


@case
def numbers_packed():
    """Devices have parts of the rows, and other parts of the places of all rows."""
    examples = ft.data.from_arrays(TEXTS, [len(text) % 3 + 0.5 for text in TEXTS])
    folder = write_checkpoint(FOLDER / "bert", blocks=1)
    model = ft.load(folder, labels=examples.labels, dropout=0.0, dtype="float32")
    model.compile(**ft.presets.mean_squared_error("sgd", 0.1, clip_norm=0.1))
    return model, {"batches": examples.batches(model, 10, shuffle=True, packing=24)}


@case
def answers_packed():
    ends = [len(text) - len(text.split()[-1]) for text in TEXTS]
    answers = [{"text": [t[i:]], "answer_start": [i]} for t, i in zip(TEXTS, ends, strict=True)]
    examples = ft.data.from_arrays(question=["film"] * 27, context=TEXTS, answers=answers)
    model = loaded(write_checkpoint(FOLDER / "bert", blocks=1), "question-answering")
    return model, {"batches": examples.batches(model, 10, shuffle=True, packing=30)}


def outcome(chosen, make):
    """What a model computes that is created in the scope of a strategy, after 21 steps."""
    with chosen.scope(), ft.messages.quiet():
        keras.utils.set_random_seed(0)
        model, data = make()
    steps = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: steps.append(logs))
    options = {"epochs": 7, "verbose": 0, "callbacks": [note]}
    if "batches" in data:
        batches = data["batches"]
        if isinstance(batches, list):
            batches = as_dataset(batches)
        history = model.fit(batches, validation_data=batches, **options).history
        evaluated = model.evaluate(batches, verbose=0, return_dict=True)
        single, predicted = None, None
    else:
        known = {name: value for name, value in data.items() if name != "class_weight"}
        parts = [known["x"], known["y"], *([known["sample_weight"]] if len(known) > 3 else [])]
        parts = keras.tree.map_structure(lambda value: value[:11], tuple(parts))
        history = model.fit(**data, shuffle=False, validation_data=parts, **options).history
        evaluated = model.evaluate(**data, verbose=0, return_dict=True)
        predicted = model.predict(data["x"], batch_size=data["batch_size"], verbose=0)
        few = keras.tree.map_structure(lambda value: value[:3], (data["x"], data["y"]))
        single = [
            model.predict_on_batch(few[0]),
            model.test_on_batch(*few),
            model.train_on_batch(*few),
        ]
    return {
        "losses of steps": steps,
        "history": history,
        "evaluation": evaluated,
        "predictions": predicted,
        "single batches": single,
        "weights": model.get_weights(),
    }


def as_dataset(batches):
    spec = keras.tree.map_structure(
        lambda value: tf.TensorSpec((None, *value.shape[1:]), value.dtype), batches[0]
    )
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def differences(one, many):
    """The largest difference of each part of two outcomes."""
    found = {}
    for name, expected in one.items():
        pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(many[name]), strict=True)
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in pairs if a is not None]
        assert all(a.shape == b.shape and np.isfinite(a).all() for a, b in pairs), name
        found[name] = max((float(np.abs(a - b).max()) for a, b in pairs), default=0.0)
    return found


def main():
    single = tf.distribute.get_strategy()
    several = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])
    for name in sys.argv[2:] or CASES:
        found = differences(outcome(single, CASES[name]), outcome(several, CASES[name]))
        print(name, found, flush=True)
        assert found.pop("weights") < 5e-5, name
        assert max(found.values()) < 1e-5, name
        print(name, "done", flush=True)


if __name__ == "__main__":
    main()
