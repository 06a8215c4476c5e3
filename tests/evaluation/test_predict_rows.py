"""A task that computes its predictions in its own way is asked wherever models predict."""

import json

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.data import from_arrays
from finetune_tf.tasks import TASKS, TextClassification

LABELS = ["bad", "good"]


class ByLength(TextClassification):
    """Says "good" of texts whose encoding is longer than five tokens; one pass is not enough."""

    def predict_rows(self, model, encoded, batch_size, forward):
        passes = [forward(encoded) for _ in range(2)]
        assert all(np.array_equal(*rows) for rows in zip(*passes, strict=True))
        assert {row.shape for row in passes[0]} == {(len(self.labels),)}
        model.asked = (batch_size, len(passes[0]))
        is_long = [len(ids) > 5 for ids in encoded.inputs["input_ids"]]
        return [np.array([0.0, 9.0 if long else -9.0], "float32") for long in is_long]


@pytest.fixture
def model(tiny_bert, monkeypatch):
    monkeypatch.setitem(TASKS, "text-classification", ByLength)
    return ft.load(tiny_bert, labels=LABELS)


@pytest.fixture
def examples():
    return from_arrays(["a good film", "a very good film", "dull"], ["bad", "good", "good"])


@pytest.mark.slow
def test_predict(model, examples):
    assert ft.predict(model, "a very good film").label == "good"
    assert [p.label for p in ft.predict(model, examples, batch_size=2)] == ["bad", "good", "bad"]
    assert model.asked == (2, 3)


@pytest.mark.slow
def test_evaluate_and_compare(model, examples):
    report = ft.evaluate(model, examples, batch_size=3)
    assert report.metrics["accuracy"] == pytest.approx(2 / 3)
    assert report.predictions.tolist() == [0, 1, 0]
    assert model.asked == (3, 3)
    assert ft.compare({"a": model}, examples).rows[0].metrics == report.metrics


def test_the_command_line(model, tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from finetune_tf.cli.commands import app

    monkeypatch.setattr("finetune_tf.cli.commands.load_trained", lambda checkpoint, task: model)
    result = CliRunner().invoke(app, ["predict", "folder", "a good film", "a very good film"])
    labels = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    assert labels == ["bad", "good"], result.output
