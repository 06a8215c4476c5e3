import csv
import json
import subprocess
import sys

import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf import cli

# The toy model has random weights, so a high learning rate cannot damage pretrained weights.
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")

ROWS = [
    ("a very good film", "good"),
    ("the actor was great", "good"),
    ("a very bad film", "bad"),
    ("the actor was poor", "bad"),
] * 8


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *ROWS])
    return path


def run(monkeypatch, *arguments) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["finetune-tf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_an_unknown_language_is_refused_before_anything_is_trained(
    tiny_bert, table, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    assert run(monkeypatch, "train", tiny_bert, table, "--output", folder, "--lang", "fr") == 2
    assert "lang='fr': a report can be written in 'en' and 'zh'" in capsys.readouterr().err
    assert not folder.exists()


def test_train_evaluate_predict(tiny_bert, table, tmp_path, monkeypatch, capsys):
    options = ["--epochs", 3, "--batch-size", 8, "--learning-rate", 1e-3, "--test", table]
    options += ["--label-smoothing", 0.1, "--keep", "last", "--lang", "zh"]
    assert run(monkeypatch, "train", tiny_bert, table, "--output", tmp_path / "run", *options) == 0
    printed = capsys.readouterr().out
    assert "baseline tfidf" in printed
    assert f"The run is saved in {tmp_path / 'run'}." in printed

    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["label_smoothing"] == 0.1
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "<code>finetune-tf train " in page and "损失最高的样本" in page

    checkpoint = tmp_path / "run" / "checkpoint"
    assert run(monkeypatch, "evaluate", checkpoint, table, "--output", tmp_path / "report") == 0
    assert "accuracy" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.json").is_file()
    assert "Highest losses" in (tmp_path / "report" / "report.html").read_text("utf-8")

    assert run(monkeypatch, "predict", checkpoint, "a very good film", "a very bad film") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["a very good film", "a very bad film"]
    assert set(lines[0]["probabilities"]) == {"good", "bad"}


@pytest.mark.slow
def test_token_classification(tmp_path, monkeypatch, capsys):
    tiny_bert = write_checkpoint(tmp_path / "one-block", blocks=1)
    rows = [(["a", "good", "film"], ["O", "O", "B-film"]), (["the", "actor"], ["O", "B-who"])] * 4
    data = tmp_path / "words.jsonl"
    data.write_text("\n".join(json.dumps({"words": row, "ner": tags}) for row, tags in rows))
    task = ["--task", "token-classification"]
    columns = ["--tokens", "words", "--tags", "ner"]
    options = ["--epochs", 1, "--validation", data, "--test", data, "--output", tmp_path / "run"]

    assert run(monkeypatch, "train", tiny_bert, data, *task, *columns, *options) == 0
    assert "baseline dictionary" in capsys.readouterr().out

    checkpoint = tmp_path / "run" / "checkpoint"
    against = ["--baseline", "majority", "--train", data]
    assert run(monkeypatch, "evaluate", checkpoint, data, *task, *columns, *against) == 0
    assert "words.jsonl: 8 sentences" in capsys.readouterr().out

    assert run(monkeypatch, "predict", checkpoint, "a good film", *task) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == "a good film"
    assert all(set(found) >= {"label", "text", "start", "end"} for found in line["entities"])

    again = [tiny_bert, data, *columns, "--validation", data, "--output", tmp_path / "no"]
    assert run(monkeypatch, "train", *again) == 2
    assert "With these columns the task can be token-classification" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_prints_one_line_and_exits_with_code_2(tiny_bert, tmp_path):
    """Runs a real process, which prints no traceback and nothing on standard output."""
    (tmp_path / "empty.csv").write_text("")
    command = [sys.executable, "-m", "finetune_tf", "train", str(tiny_bert)]
    done = subprocess.run(
        [*command, str(tmp_path / "empty.csv"), "--output", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert done.stdout == ""
    message = [line for line in done.stderr.splitlines() if line.startswith("finetune-tf:")]
    assert len(message) == 1 and "empty" in message[0]
    assert "Traceback" not in done.stderr


def test_help_names_every_command(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for command in ("train", "evaluate", "predict", "demo"):
        assert command in printed


@pytest.mark.slow
def test_columns_of_0_and_1_are_multi_label(tiny_bert, tmp_path, monkeypatch, capsys):
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        rows = [(text, int(label == "good"), int("film" in text)) for text, label in ROWS]
        csv.writer(file).writerows([("text", "good", "about_film"), *rows])
    columns = ["--label", "good", "--label", "about_film"]
    options = [*columns, "--epochs", 1, "--output", tmp_path / "run"]

    assert run(monkeypatch, "train", tiny_bert, path, *options) == 0
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "checkpoint"
    assert run(monkeypatch, "evaluate", checkpoint, path, *columns) == 0
    printed = capsys.readouterr().out
    assert "Device: CPU (tensorflow); precision: float32." in printed
    assert "about_film" in printed
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["label2id"] == {"good": 0, "about_film": 1}


@pytest.mark.slow
def test_integers_as_regression_scores(tiny_bert, tmp_path, monkeypatch, capsys):
    path = tmp_path / "train.jsonl"
    rows = [{"text": text, "stars": 5 if label == "good" else 1} for text, label in ROWS]
    path.write_text("\n".join(map(json.dumps, rows)))
    options = ["--label", "stars", "--problem-type", "regression", "--epochs", 1]
    options += ["--test", path, "--output", tmp_path / "run"]

    assert run(monkeypatch, "train", tiny_bert, path, *options) == 0
    assert "pearson" in capsys.readouterr().out
    assert run(monkeypatch, "predict", tmp_path / "run" / "checkpoint", "a very good film") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["label"] is None
    device, loaded = printed.err.splitlines()
    assert device == "Device: CPU (tensorflow); precision: float32."
    assert "41 of 41 variables filled" in loaded  # or that the head is new, and says nothing


def test_an_unwritable_folder_raises_an_error_before_training(
    tiny_bert, table, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    for command in (["train", tiny_bert, table], ["demo"]):
        assert run(monkeypatch, *command, "--output", tmp_path / "file" / "run") == 2
        printed = capsys.readouterr()
        assert (
            "file/run cannot be written (Not a directory). Choose a writable folder" in printed.err
        )
        assert printed.out == ""


@pytest.mark.slow
def test_export(tiny_bert, tmp_path, monkeypatch, capsys):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    model.set_weights([weight + 0.01 for weight in model.get_weights()])
    checkpoint = model.save_pretrained(tmp_path / "trained")
    assert not run(monkeypatch, "export", checkpoint, tmp_path / "served")
    assert "as tf_saved_model" in capsys.readouterr().out
    assert (tmp_path / "served" / "saved_model.pb").exists()
