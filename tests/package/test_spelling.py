"""Errors about argument names of other libraries suggest the name that is used here."""

import inspect

import keras
import pytest

import finetune_tf as ft
from finetune_tf.base.spelling import meant_by, names_checked
from finetune_tf.errors import ArgumentError, FinetuneError, UnknownArgumentError

EXAMPLES = ft.data.from_arrays(["a", "b"], [0, 1])
MODEL = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def message(function, *args, **names) -> str:
    with pytest.raises(UnknownArgumentError) as error:
        function(*args, **names)
    return str(error.value)


@pytest.mark.parametrize(
    ("function", "wrong", "right"),
    [
        (ft.load, "num_labels", "labels"),
        (ft.load, "num_classes", "labels"),
        (ft.load, "class_names", "labels"),
        (ft.load, "model_name", "checkpoint"),
        (ft.load, "pretrained_model_name_or_path", "checkpoint"),
        (ft.load, "torch_dtype", "dtype"),
        (ft.load, "poling", "pooling"),
        (ft.data.from_csv, "sep", "delimiter"),
        (ft.data.from_csv, "filename", "path"),
        (ft.data.from_csv, "text_column", "text"),
        (ft.data.from_csv, "label_column", "label"),
        (ft.data.from_csv, "targets", "label"),
        (ft.data.from_csv, "num_labels", "labels"),
        (ft.data.from_csv, "encodig", "encoding"),
        (ft.data.from_csv, "on_bad_lines", "on_invalid"),
        (ft.data.from_jsonl, "sentence", "text"),
        (ft.data.from_jsonl, "words", "tokens"),
        (ft.data.from_arrays, "x", "text"),
        (ft.data.from_arrays, "y", "label"),
        (ft.data.from_arrays, "texts", "text"),
        (ft.data.from_arrays, "ner_tags", "tags"),
        (ft.data.from_pandas, "df", "frame"),
        (ft.data.from_huggingface, "name", "dataset"),
        (ft.data.from_tfds, "dataset", "builder"),
        (ft.data.from_excel, "sheet_name", "sheet"),
        (EXAMPLES.batches, "batchsize", "batch_size"),
        (EXAMPLES.batches, "batch", "batch_size"),
        (EXAMPLES.batches, "maxlen", "max_length"),
        (EXAMPLES.batches, "max_seq_length", "max_length"),
        (EXAMPLES.batches, "drop_last", "drop_remainder"),
        (EXAMPLES.batches, "mlm_probability", "mask_rate"),
        (EXAMPLES.split, "test_size", "fraction"),
        (EXAMPLES.split, "random_state", "seed"),
        (ft.finetune, "lr", "learning_rate"),
        (ft.finetune, "num_train_epochs", "epochs"),
        (ft.finetune, "train_dataset", "train"),
        (ft.finetune, "eval_dataset", "validation"),
        (ft.finetune, "max_len", "max_length"),
        (ft.presets.cross_entropy, "lr", "learning_rate"),
        (ft.presets.cross_entropy, "max_grad_norm", "clip_norm"),
        (ft.presets.mean_squared_error, "warmup", "warmup_ratio"),
        (ft.presets.similarity, "gradient_accumulation_steps", "accumulate"),
        (ft.generate, "max_length", "max_new_tokens"),
        (ft.generate, "min_length", "min_new_tokens"),
        (ft.stream, "stop", "stop_strings"),
        (ft.evaluate, "test_dataset", "test"),
        (ft.evaluate, "batchsize", "batch_size"),
        (ft.interpolate, "alpha", "share"),
        (ft.interpolation_curve, "alphas", "shares"),
        (ft.predict, "sentences", "texts"),
        (ft.predict, "text", "texts"),
        (ft.predict, "questions", "question"),
    ],
)
def test_the_intended_name_is_suggested(function, wrong, right):
    told = message(function, **{wrong: 3})
    assert told.endswith(f"has no argument {wrong!r}. Did you mean {right}=?")


@pytest.mark.parametrize(
    ("function", "name", "place"),
    [
        (EXAMPLES.batches, "padding", "Batches are padded automatically, each one to the length"),
        (EXAMPLES.batches, "epochs", "Pass the epochs to model.fit(batches, epochs=3)"),
        (EXAMPLES.batches, "lr", "ft.presets.cross_entropy(learning_rate=2e-5)"),
        (EXAMPLES.batches, "num_labels", "ft.load(checkpoint, labels=train.labels)"),
        (ft.load, "learning_rate", "ft.presets.cross_entropy(learning_rate=2e-5)"),
        (ft.evaluate, "max_length", "ft.load(checkpoint, max_length=128)"),
        (ft.generate, "eos_token_id", "Set it in model.info.generation['eos_token_id']"),
        (ft.finetune, "label_column", 'ft.data.from_csv(path, label="stars")'),
        (ft.presets.cross_entropy, "epochs", "model.fit(batches, epochs=3)"),
        (ft.presets.cross_entropy, "metrics", "Presets include a loss and metrics"),
        (ft.data.from_csv, "columns", 'Name each column by its own argument: text="…"'),
        (ft.data.from_csv, "batch_size", "examples.batches(model, batch_size=32)"),
    ],
)
def test_the_intended_function_is_suggested(function, name, place):
    assert place in message(function, **{name: 3})


def test_unknown_names_without_a_suggestion():
    assert message(EXAMPLES.take, zzz=1) == "Examples.take() has no argument 'zzz'. It has n."
    assert message(ft.data.from_csv, "a.csv", zzz=1).endswith(
        "It has path, text, text_pair, label, labels, problem_type, delimiter, encoding, "
        "quotechar, on_invalid, tokens, tags, prompt, "
        "completion, source, target, messages, question, context, answers, image, video."
    )


def test_wrong_positional_arguments():
    assert "load() got too many positional arguments. Pass them by name" in message(
        ft.load, "bert", "text-classification", ["neg", "pos"]
    )
    assert message(ft.load).startswith("load() needs the argument 'checkpoint'. Its arguments are")
    with pytest.raises(FinetuneError) as error:
        ft.load("bert", ["neg", "pos"])
    assert str(error.value) == (
        "A task is a name such as 'text-classification', found ['neg', 'pos']. Labels are given "
        "by name: load(checkpoint, labels=['neg', 'pos'])."
    )
    with pytest.raises(FinetuneError, match=r"load\(checkpoint, labels=3\)"):
        ft.load("bert", 3)


def test_the_error_is_a_type_error():
    with pytest.raises(TypeError, match="has no argument 'zzz'"):
        EXAMPLES.shuffle(zzz=1)
    assert issubclass(UnknownArgumentError, ArgumentError)


def _takes_arguments(function):
    return inspect.signature(function).parameters and not function.__name__.startswith("_")


def public_functions():
    """Yields every public function, and the methods of Examples."""
    for place in (ft, ft.data):
        for name in place.__all__:
            if inspect.isfunction(found := getattr(place, name)):
                yield f"{place.__name__}.{name}", found
    for place in (ft.presets, ft.select, ft.callbacks):
        for name, found in vars(place).items():
            own = getattr(found, "__module__", None) == place.__name__
            own = name in place.__all__ if hasattr(place, "__all__") else own
            if inspect.isfunction(found) and own and _takes_arguments(found):
                yield f"{place.__name__}.{name}", found
    for name in ("batches", "encoded", "shuffle", "split", "take"):
        yield f"Examples.{name}", getattr(EXAMPLES, name)
    for name in ("compile", "fit", "export", "push_to_hub"):
        yield f"FineTuneModel.{name}", getattr(ft.FineTuneModel, name)


@pytest.mark.parametrize(
    "function", [pytest.param(found, id=name) for name, found in public_functions()]
)
def test_every_public_function_explains_unknown_names(function):
    assert "has no argument 'no_such_name'" in message(function, no_such_name=1)


def test_decorated_functions_keep_their_signature():
    @names_checked(also=lambda: ["more"])
    def function(a, b=2, **options):
        """Adds."""
        return a, b, options

    assert function(1, more=3) == (1, 2, {"more": 3})
    assert function.__doc__ == "Adds."
    assert list(inspect.signature(function).parameters) == ["a", "b", "options"]
    assert message(function, 1, moore=3).endswith("has no argument 'moore'. Did you mean more=?")
    assert meant_by("moore", ["a", "more"]) == "more"


def test_a_misspelt_selector():
    with pytest.raises(AttributeError, match="no selector 'embedding'; there are: everything, hea"):
        ft.select.embedding  # noqa: B018
    assert all(callable(getattr(ft.select, name)) for name in ft.select._NAMES)
