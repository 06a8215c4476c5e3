"""The command `tune`."""

import json
import sys

import pytest

import finetune_tf as ft
from finetune_tf import cli
from finetune_tf.cli.tuning import space_of
from finetune_tf.errors import ArgumentError

pytest.importorskip("optuna")


def run(monkeypatch, *arguments) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["finetune-tf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_the_space_of_the_options():
    assert space_of(None) is None
    assert space_of(["learning_rate=1e-5..1e-4", 'policy=["full", "head"]']) == {
        "learning_rate": ft.between(1e-5, 1e-4), "policy": ["full", "head"]
    }  # fmt: skip
    for wrong in ("epochs", "epochs=3", "=[1]", "epochs=1..", "epochs=[1,"):
        with pytest.raises(ArgumentError, match="--search is NAME="):
            space_of([wrong])
    with pytest.raises(ArgumentError, match="--search names epochs twice."):
        space_of(["epochs=[1]", "epochs=[2]"])


def test_a_budget_is_required(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "tune", "none", "reviews", "--output", tmp_path / "search") == 2
    assert "tune needs a budget: minutes=…, trials=…, or both." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
def test_a_search_is_printed_and_saved(monkeypatch, capsys, tmp_path, tiny_bert):
    rows = [f"a {a} and {b} film,{a}" for a in ("good", "bad") for b in ("long", "short", "fine")]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["text,label", *rows]) + "\n")
    output = tmp_path / "search"
    options = ["--validation", data, "--test", data, "--output", output, "--trials", 1]
    options += ["--policy", "head", "--search", "batch_size=[2,4]"]
    assert run(monkeypatch, "tune", tiny_bert, data, *options) == 0
    printed = capsys.readouterr().out
    assert "val_accuracy (higher is better) of 1 trials and the default settings:" in printed
    assert "ft.finetune(" in printed
    assert len(json.loads((output / "report.json").read_text())["trials"]) == 2
