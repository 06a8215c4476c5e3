"""What is fuzzed: each target damages one thing by a seed and then uses the library.

A target returns normally if the library gave right numbers, and raises what the library raised.
"""

import contextlib
import importlib.util
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers_checkpoints import INPUTS, main_task
from helpers_models import small_model

import finetune_tf as ft
from finetune_tf.families import FAMILIES
from fuzz.mutations import ODD_ARGUMENTS, damaged_bytes, damaged_text, document

#: The families that are damaged, all of which classify texts.
CLASSIFIERS = [family for family in FAMILIES if main_task(family) == "text-classification"]
TESTS = Path(__file__).resolve().parents[1]
TEXTS = ["the film was good", "a dull story", "the actor was very great", "not a good film"]
LABELS = ["yes", "no", "yes", "no"]

Target = Callable[[Path, random.Random], None]


def _checkpoint(family: str, folder: Path) -> dict[str, np.ndarray]:
    """Copies the reference checkpoint of a family; returns what PyTorch gives for it."""
    source = TESTS / "references" / family / "text-classification"
    shutil.copytree(source, folder)
    with np.load(source / "expected.npz") as stored:
        return dict(stored)


def _loaded(folder: Path) -> tuple[ft.FineTuneModel, bool]:
    """A model, and whether the load said that a part of it is new."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        model = ft.load(folder, "text-classification", dtype="float32")
    return model, "new: " in said.getvalue()


def _logits(model: ft.FineTuneModel, expected: dict[str, np.ndarray]) -> np.ndarray:
    inputs = {name: expected[name] for name in INPUTS if name in expected}
    logits = np.asarray(model(inputs, training=False))
    assert np.isfinite(logits).all(), "The logits are not finite."
    return logits


def _same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape, f"Logits of shape {found.shape} for {wanted.shape}."
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def warm_up(checkpoint: Path) -> None:
    """What only the first case would do: imports, and what TensorFlow prepares once."""
    model, _ = _loaded(checkpoint)
    with ft.messages.quiet():
        ft.predict(model, TEXTS)
    if importlib.util.find_spec("torch"):
        from transformers import AutoModelForSequenceClassification  # noqa: F401


def config(family: str) -> Target:
    """config.json of a family. With PyTorch at hand, logits are compared with what that gives."""

    def target(folder: Path, draw: random.Random) -> None:
        expected = _checkpoint(family, folder / "model")
        path = folder / "model" / "config.json"
        path.write_text(document(json.loads(path.read_text()), draw), encoding="utf-8")
        model, has_new = _loaded(folder / "model")
        found = _logits(model, expected)
        if importlib.util.find_spec("torch") and not has_new:
            theirs = _logits_of_pytorch(folder / "model", expected)
            if theirs is not None:
                _same(found, theirs)

    return target


def _logits_of_pytorch(folder: Path, expected: dict[str, np.ndarray]) -> np.ndarray | None:
    """What transformers gives for a folder; None if it refuses it, or draws weights anew."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32
        )
    except Exception:
        return None
    if report["missing_keys"] or report["mismatched_keys"]:
        return None
    inputs = {n: torch.tensor(expected[n].astype("int64")) for n in INPUTS if n in expected}
    padding = model.config.pad_token_id
    if hasattr(model, "score"):  # a decoder, which finds the last token of a text by this id alone
        if padding is None:
            return None
        inputs["input_ids"][inputs["attention_mask"] == 0] = padding
    try:
        with torch.no_grad():
            return model.eval()(**inputs).logits.numpy()
    except (IndexError, RuntimeError):  # ids beyond a table, for example
        return None


def safetensors_header(folder: Path, draw: random.Random) -> None:
    """The header of model.safetensors: names, types, shapes, offsets."""
    expected = _checkpoint(draw.choice(CLASSIFIERS), folder / "model")
    path = folder / "model" / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if draw.random() < 0.6:
        header = document(json.loads(content[8 : 8 + size]), draw).encode("utf-8")
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    else:
        path.write_bytes(damaged_bytes(content, draw, within=8 + size))
    model, has_new = _loaded(folder / "model")
    found = _logits(model, expected)
    if not has_new:
        _same(found, expected["logits"])


def shards(folder: Path, draw: random.Random) -> None:
    """The index of a checkpoint in two files; one that is meant for nobody lies outside."""
    from safetensors.numpy import load_file, save_file

    model = folder / "model"
    expected = _checkpoint(draw.choice(CLASSIFIERS), model)
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, held in parts.items():
        save_file({key: tensors[key] for key in held}, model / name)
    save_file({key: tensors[key] + 1 for key in names}, folder / "outside")
    index = {"weight_map": {key: name for name, held in parts.items() for key in held}}
    path = model / "model.safetensors.index.json"
    path.write_text(document(index, draw), encoding="utf-8")
    loaded, has_new = _loaded(model)
    found = _logits(loaded, expected)
    if not has_new:
        _same(found, expected["logits"])


def hdf5(folder: Path, draw: random.Random) -> None:
    """Bytes of a tf_model.h5; damage to a number alone cannot be noticed."""
    sources = sorted((TESTS / "fixtures" / "tf4").glob("*/text-classification"))
    shutil.copytree(draw.choice(sources), folder / "model")
    path = folder / "model" / "tf_model.h5"
    within = draw.choice((96, 2048, None))
    path.write_bytes(damaged_bytes(path.read_bytes(), draw, within))
    model, _ = _loaded(folder / "model")
    model(np.ones((2, 5), "int32"), training=False)


def tokenizer(source: Path) -> Target:
    """A file of a tokenizer."""

    def target(folder: Path, draw: random.Random) -> None:
        shutil.copytree(source, folder / "model")
        files = [
            path
            for path in sorted((folder / "model").iterdir())
            if path.name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
        ]
        path = draw.choice(files)
        if path.name == "vocab.txt":
            (folder / "model" / "tokenizer.json").unlink(missing_ok=True)
        if path.suffix == ".json" and draw.random() < 0.8:
            path.write_text(document(json.loads(path.read_text()), draw), encoding="utf-8")
        else:
            path.write_bytes(damaged_bytes(path.read_bytes(), draw))
        model, _ = _loaded(folder / "model")
        with ft.messages.quiet():
            predictions = ft.predict(model, TEXTS)
        assert len(predictions) == len(TEXTS)
        for prediction in predictions:
            np.testing.assert_allclose(sum(prediction.probabilities.values()), 1, atol=1e-5)

    return target


def csv(folder: Path, draw: random.Random) -> None:
    """A CSV file."""
    rows = "".join(f'"{text}",{label}\n' for text, label in zip(TEXTS, LABELS, strict=True))
    path = folder / "data.csv"
    path.write_bytes(damaged_text(f"text,label\n{rows * 2}", draw))
    _check_examples(ft.data.from_csv(path))


def jsonl(folder: Path, draw: random.Random) -> None:
    """A JSON Lines file, of which a row or the text is damaged."""
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)] * 2
    lines = [json.dumps(row) for row in rows]
    path = folder / "data.jsonl"
    if draw.random() < 0.5:
        at = draw.randrange(len(lines))
        lines[at] = document(rows[at], draw)
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_bytes(damaged_text("\n".join(lines), draw))
    _check_examples(ft.data.from_jsonl(path))


def _check_examples(examples: ft.data.Examples) -> None:
    """Rows of texts with labels, none of them made up."""
    assert 0 < len(examples) <= 12
    assert all(isinstance(text, str) and text.strip() for text in examples.columns["text"])
    assert examples.labels is not None
    json.dumps(examples.columns["text"]).encode("utf-8")


class Arguments:
    """Arguments of public functions, one of them odd."""

    def __init__(self, checkpoint: Path) -> None:
        table = checkpoint.parent / "table.csv"
        table.write_text("text,label\na good film,yes\na dull one,no\n", encoding="utf-8")
        examples = ft.data.from_arrays(TEXTS * 5, LABELS * 5)
        model = small_model(("no", "yes"), checkpoint)
        model.info.head_layers = ()
        pair = {"before": small_model(("no", "yes"), checkpoint), "after": model}
        self.calls: list[tuple[Callable, dict]] = [
            (ft.load, {"checkpoint": checkpoint, "task": "text-classification", "labels": 2}),
            (ft.load, {"checkpoint": checkpoint, "labels": 2, "dropout": 0.1, "dtype": None}),
            (ft.load, {"checkpoint": checkpoint, "labels": 2, "config": None, "pooling": "auto"}),
            (ft.load, {"checkpoint": checkpoint, "labels": 2, "problem_type": None}),
            (ft.data.from_arrays, {"text": TEXTS, "label": LABELS, "labels": None}),
            (ft.data.from_arrays, {"text": TEXTS, "text_pair": TEXTS, "problem_type": None}),
            (ft.data.from_arrays, {"tokens": [["a"]], "tags": [["O"]]}),
            (ft.data.from_arrays, {"question": ["a"], "context": ["a b"], "answers": ["b"]}),
            (ft.Labels, {"names": ["a", "b"], "problem_type": None}),
            (ft.Labels.of, {"labels": ["a", "b"]}),
            (examples.split, {"fraction": 0.25, "seed": 0}),
            (examples.batches, {"model": model, "batch_size": 4, "shuffle": True, "seed": 0}),
            (examples.batches, {"model": model, "max_length": 8, "drop_remainder": False}),
            (examples.batches, {"model": model, "tokens_per_batch": 64, "buckets": 2}),
            (ft.presets.cross_entropy, {"learning_rate": 1e-4, "warmup_ratio": 0.1}),
            (ft.presets.cross_entropy, {"weight_decay": 0.01, "clip_norm": 1.0, "accumulate": 1}),
            (ft.presets.cross_entropy, {"label_smoothing": 0.1, "schedule": "linear"}),
            (ft.presets.cross_entropy, {"optimizer": "adamw"}),
            (ft.presets.mean_squared_error, {"learning_rate": "auto", "schedule": "constant"}),
            (ft.presets.similarity, {"scale": 20.0, "optimizer": "sgd"}),
            (ft.data.from_arrays, {"text": TEXTS, "name": "toy", "on_invalid": "raise"}),
            (ft.data.from_csv, {"path": table, "text": "text", "label": "label"}),
            (ft.data.from_csv, {"path": table, "delimiter": ",", "encoding": "utf-8"}),
            (ft.data.from_csv, {"path": table, "on_invalid": "drop", "quotechar": '"'}),
            (ft.data.overlap, {"train": examples, "test": examples}),
            (examples.take, {"n": 2}),
            (examples.shuffle, {"seed": 0}),
            (examples.__getitem__, {"rows": [0, 1]}),
            (ft.data.tokenized_batches, {"dataset": {"input_ids": [[5, 6]]}, "model": model}),
            (ft.train_only, {"model": model, "selector": ft.select.head()}),
            (ft.count_parameters, {"model": model}),
            (ft.compare, {"models": {"a": model}, "test": examples}),
            (ft.interpolate, {**pair, "share": 0.5}),
            (ft.interpolation_curve, {**pair, "tests": {"a": examples}, "shares": [0.5]}),
            (ft.plot_history, {"history": {"loss": [1.0, 0.5]}}),
            (ft.start_from_mean, {"model": model, "train": examples}),
            (model, {"inputs": np.ones((2, 5), "int32")}),
            (model.predict, {"x": np.ones((2, 5), "int32"), "batch_size": 2, "verbose": 0}),
            (model.compile, {"optimizer": "adamw", "loss": None, "metrics": ["accuracy"]}),
            (ft.select.bottom, {"n": 1}),
            (ft.select.blocks, {"start": 0, "stop": 1}),
            (ft.select.matching, {"pattern": "kernel"}),
            (ft.freeze, {"model": model, "selector": ft.select.embeddings()}),
            (ft.stages, {"model": model}),
            (ft.cache_features, {"model": model, "precision": "float32"}),
            (ft.predict, {"model": model, "texts": TEXTS, "batch_size": 4}),
            (ft.evaluate, {"model": model, "test": examples, "batch_size": 4}),
            (ft.evaluate, {"model": model, "test": examples, "baseline": None, "train": examples}),
        ]

    def __call__(self, folder: Path, draw: random.Random) -> None:
        """Calls one of the functions with one argument replaced."""
        function, arguments = draw.choice(self.calls)
        name, value = draw.choice(list(arguments)), draw.choice(ODD_ARGUMENTS)
        try:
            with ft.messages.quiet():
                function(**{**arguments, name: value})
        except BaseException as error:
            error.add_note(f"{getattr(function, '__qualname__', function)}({name}={value!r:.80})")
            raise
