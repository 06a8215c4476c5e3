"""The options of the command line, which match those of the Python functions."""

import csv
import inspect
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import typer
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf import cli
from finetune_tf.cli.options import class_weights, options_of_task, rates, task_options
from finetune_tf.errors import ArgumentError
from finetune_tf.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")
ROWS = [
    (f"a very {label} film {'very ' * i}", label) for i in range(8) for label in ("good", "bad")
]


def run(monkeypatch, *arguments) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["finetune-tf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "base", blocks=1)


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """The folders of models of each task with a head that counts as trained."""
    options = {
        "text-classification": {"labels": ["bad", "good"]},
        "token-classification": {"labels": ["O", "B-film"]},
    }
    folder, found = tmp_path_factory.mktemp("saved"), {}
    tasks = [n for n, t in TASKS.items() if t.preprocessor == "tokenizer" and not t.generates_text]
    for task in sorted(tasks):
        model = ft.load(base, task, **options.get(task, {}))
        model.set_weights([weight + 0.01 for weight in model.get_weights()])
        found[task] = model.save_pretrained(folder / task)
    return found


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *ROWS])
    return path


def options_of(command):
    """Returns the names of the options and arguments of a command."""
    group = typer.main.get_command(cli.app)
    return {name for p in group.commands[command].params for name in p.opts}


def test_train_has_every_argument_of_finetune():
    missing = {
        name
        for name in inspect.signature(ft.finetune).parameters
        if "--" + name.replace("_", "-") not in options_of("train")
    }
    # The first two are arguments of the command, and the other two exist only in Python.
    assert missing == {"checkpoint", "train", "callbacks", "objectives"}


@pytest.mark.slow
@pytest.mark.parametrize("reader", [ft.data.from_csv, ft.data.from_jsonl])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_commands_have_every_option_of_a_reader(command, reader):
    inside = {"path", "columns", "labels", "problem_type"}  # labels come with the data or the model
    names = {name for name in inspect.signature(reader).parameters if name not in inside}
    assert {"--" + name.replace("_", "-") for name in names} <= options_of(command)


@pytest.mark.parametrize("function", ["evaluate", "predict", "serve"])
def test_the_other_commands_have_the_arguments_of_their_functions(function):
    names = set(inspect.signature(getattr(ft, function)).parameters)
    # Arguments there, or options by their own name.
    names -= {"model", "test", "texts", "columns", "folder"}
    assert {"--" + name.replace("_", "-") for name in names} <= options_of(function)


def test_help_names_every_task(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("train", "evaluate", "predict", "export"):
        assert run(monkeypatch, command, "--help") == 0
        printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert all(task in printed for task in TASKS)


@pytest.mark.slow
def test_a_real_process_silences_tensorflow_and_prints_its_version():
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "finetune_tf", "--version"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == (f"finetune-tf {ft.__version__}\n", "")
    assert done.returncode == 0


@pytest.mark.slow
def test_importing_the_library_does_not_change_logging():
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import os, finetune_tf; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout != "3\n"  # TensorFlow itself sets 1 where nothing is set


@pytest.mark.parametrize("wrong", ["head", "head=ten", "=3"])
def test_rates_of_another_form(wrong):
    message = f"--rates is GROUP=FACTOR, such as head=10 or embeddings=0.5; found {wrong!r}."
    with pytest.raises(ArgumentError, match=message):
        rates([wrong])


@pytest.mark.slow
def test_many_options_at_once(base, tmp_path, monkeypatch, capsys):
    path = tmp_path / "train.csv"
    films = [f"{i} ein sehr guter Film für mich|gut\n{i} nicht schön|schlecht" for i in range(8)]
    lines = ["review|mood", *films]
    path.write_text("\n".join(lines), encoding="cp1252")
    options = ["--text", "review", "--label", "mood", "--encoding", "cp1252", "--delimiter", "|"]
    options += ["--class-weight", "gut=2", "--class-weight", "schlecht=0.5", "--verbose", 2]
    options += ["--optimizer", "sgd", "--dropout", 0.0, "--store-features", "off", "--epochs", 1]
    options += ["--schedule", "cosine", "--warmup-ratio", 0.2, "--weight-decay", 0.0]
    options += ["--rates", "head=10", "--rates", "kernel$=0.5"]
    options += ["--baseline", "majority", "--test", path, "--output", tmp_path / "run"]

    assert run(monkeypatch, "train", base, path, *options) == 0

    printed = capsys.readouterr().out
    assert "baseline majority" in printed
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["class_weight"] == {"gut": 2.0, "schlecht": 0.5}
    assert settings["optimizer"] == "sgd" and settings["dropout"] == 0.0
    assert settings["store_features"] == "False"
    assert settings["schedule"] == "cosine" and settings["warmup_ratio"] == 0.2
    assert settings["rates"] == {"head()": 10.0, "kernel$": 0.5}
    card = (tmp_path / "run" / "checkpoint" / "config.json").read_text()
    assert json.loads(card)["hidden_dropout_prob"] == 0.0


def test_options_of_the_task():
    given = ["prefix=summarize: ", 'languages=["en", "de"]', "stride=64"]
    assert task_options(given) == {
        "prefix": "summarize: ",
        "languages": ["en", "de"],
        "stride": 64,
    }
    assert task_options(None) == {}
    for wrong in ("prefix", "lr=3"):
        with pytest.raises(ArgumentError, match="--options is NAME=VALUE with one of mask_rate|st"):
            task_options([wrong])


def test_options_of_texts_to_texts():
    nothing = dict.fromkeys(("options", "prefix", "max_target_length"))
    languages = {"source_language": "en", "target_language": "de"}
    assert options_of_task(**nothing, **languages) == {"languages": ["en", "de"]}
    given = {"options": ["stride=64"], "prefix": "", "max_target_length": 9}
    without = dict.fromkeys(languages)
    assert options_of_task(**given, **without) == {
        "stride": 64,
        "prefix": "",
        "max_target_length": 9,
    }
    with pytest.raises(ArgumentError, match="Give both --source-language and --target-language"):
        options_of_task(**nothing, source_language=None, target_language="de")
    twice = nothing | {"options": ["prefix=a"], "prefix": "b"}
    with pytest.raises(ArgumentError, match="prefix is given twice: as an option of its own and"):
        options_of_task(**twice, **without)


def test_class_weights_by_name_or_number():
    labels = ft.Labels(["spam", "a=b"])
    assert class_weights(["spam=2", "a=b=0.5"], labels) == {"spam": 2.0, "a=b": 0.5}
    assert class_weights(["1=3"], labels) == {"a=b": 3.0}
    assert class_weights(None, labels) is None
    for wrong in ("spam", "spam=much", "spam=-1", "spam=inf", "spam=nan"):
        with pytest.raises(ArgumentError, match="--class-weight is LABEL=NUMBER with a number"):
            class_weights([wrong], labels)
    with pytest.raises(ArgumentError, match="names the label 'ham'; labels: spam, a=b"):
        class_weights(["ham=2"], labels)
    with pytest.raises(ArgumentError, match="--class-weight names the label 'spam' twice"):
        class_weights(["spam=2", "0=3"], labels)


def test_class_weights_reach_their_labels_in_a_head_of_another_order(tmp_path, monkeypatch, capsys):
    """A trained head keeps the order of its labels, which may be another one than in the data."""
    model = ft.load(write_checkpoint(tmp_path / "new"), labels=["positive", "negative"])
    model.get_layer("classifier").dense.bias.assign([1.0, 0.0])  # no longer the initial head
    checkpoint = model.save_pretrained(tmp_path / "trained")
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "a good film,positive\na bad film,negative\n" * 4)
    found = {}

    def fit(self, *args, class_weight, **kwargs):
        found.update(weights=class_weight, labels=list(self.labels))
        raise ArgumentError("The fit is not of interest.")

    monkeypatch.setattr(ft.FineTuneModel, "fit", fit)
    options = ["--validation", path, "--output", tmp_path / "run", "--class-weight", "positive=5"]
    assert run(monkeypatch, "train", checkpoint, path, *options) == 2
    assert found == {"weights": {"positive": 5.0}, "labels": ["positive", "negative"]}


def test_an_option_that_is_given_twice():
    with pytest.raises(ArgumentError, match="--rates names head twice"):
        rates(["head=2", "kernel$=1", "head=3"])
    with pytest.raises(ArgumentError, match="--options names stride twice"):
        task_options(["stride=64", "stride=32"])


@pytest.mark.parametrize(
    "name, option, message",
    [
        ("data.jsonl", ["--delimiter", ";"], "--delimiter has no meaning for"),
        ("reviews", ["--encoding", "cp1252"], "--encoding has no meaning for reviews"),
        ("glue/sst2", ["--quotechar", "'"], "--quotechar has no meaning for glue/sst2"),
        ("reviews", ["--text", "review"], "--text has no meaning for reviews, whose columns are"),
        ("reviews", ["--label", "a", "--label", "b"], "--label has no meaning for reviews"),
        ("reviews", ["--problem-type", "regression"], "--problem-type has no meaning for reviews"),
    ],
)
def test_options_that_do_not_apply_raise_an_error(
    base, tmp_path, monkeypatch, capsys, name, option, message
):
    source = tmp_path / name if "." in name else name
    code = run(monkeypatch, "train", base, source, *option, "--output", tmp_path / "run")
    assert code == 2 and message in capsys.readouterr().err


def test_a_file_of_unknown_kind(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "data.parquet").write_text("PAR1")
    code = run(monkeypatch, "train", base, tmp_path / "data.parquet", "--output", tmp_path / "run")
    assert code == 2
    assert "has an ending that says nothing about its format; known are .csv" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["runs", "reports", "graphs"])
def test_results_are_not_overwritten_without_the_option(
    kind, saved, base, table, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "out"
    checkpoint = saved["text-classification"]
    command = {
        "runs": ["train", base, table, "--epochs", 1, "--output", folder],
        "reports": ["evaluate", checkpoint, table, "--output", folder],
        "graphs": ["export", checkpoint, folder],
    }[kind]
    assert not run(monkeypatch, *command)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()

    assert run(monkeypatch, *command) == 2
    printed = capsys.readouterr()
    assert "/out already contains " in printed.err
    assert "or replace these files with --overwrite." in printed.err
    assert printed.out == ""  # told before anything was loaded
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written

    assert not run(monkeypatch, *command, "--overwrite")
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in written if path.parent == folder
    }


@pytest.mark.slow
def test_a_graph_can_be_exported_only_to_its_own_checkpoint(saved, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "own"
    shutil.copytree(saved["text-classification"], folder)
    assert run(monkeypatch, "export", saved["token-classification"], folder) == 2
    assert "already contains config.json" in capsys.readouterr().err
    assert not run(monkeypatch, "export", folder, folder)


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_an_untrained_head_raises_an_error(command, base, table, tmp_path, monkeypatch, capsys):
    given = {"predict": ["a good film"], "evaluate": [table], "export": [tmp_path / "served"]}
    assert run(monkeypatch, command, base, *given[command]) == 2
    printed = capsys.readouterr()
    assert "finetune-tf: The head of this model (classifier) is not trained" in printed.err
    assert "or train this one first with finetune-tf train." in printed.err
    assert not (tmp_path / "served").exists()


def test_a_failed_training_leaves_no_folder(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "train.csv").write_text("text,label\ngood film,\n")
    output = tmp_path / "runs" / "first"
    assert run(monkeypatch, "train", base, tmp_path / "train.csv", "--output", output) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv"}


def said(monkeypatch, capsys, *arguments, stdin=None):
    """Returns the objects that predict prints, and its standard error."""
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
    code = run(monkeypatch, "predict", *arguments)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return [json.loads(line) for line in printed.out.splitlines()], printed.err


def test_each_input_line_has_an_output_line(saved, monkeypatch, capsys):
    lines = b"\na good film\n   \n\xef\xbb\xbf\r\na bad film\r\n\n"
    found, told = said(monkeypatch, capsys, saved["text-classification"], stdin=lines)
    assert [line["text"] for line in found] == ["", "a good film", "", "\ufeff", "a bad film", ""]
    assert [("label" in line) for line in found] == [False, True, False, True, True, False]
    assert "3 of 6 texts are empty and are printed without a prediction." in told


def test_empty_input(saved, monkeypatch, capsys):
    found, _ = said(monkeypatch, capsys, saved["text-classification"], stdin=b"\n\n")
    assert found == [{"text": ""}, {"text": ""}]
    assert said(monkeypatch, capsys, saved["text-classification"], stdin=b"")[0] == []


def test_empty_texts_among_arguments_and_pairs(saved, monkeypatch, capsys):
    pairs = ["a film", "", "a film", "--text-pair", "good", "--text-pair", "bad"]
    pairs += ["--text-pair", " "]
    found, _ = said(monkeypatch, capsys, saved["text-classification"], *pairs)
    assert [sorted(line)[:1] for line in found] == [["label"], ["text"], ["text"]]


def test_standard_input_in_another_encoding(saved, monkeypatch, capsys):
    latin = "schön\n".encode("cp1252")
    found, _ = said(
        monkeypatch, capsys, saved["text-classification"], "--encoding", "cp1252", stdin=latin
    )
    assert found[0]["text"] == "schön"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(latin), encoding="utf-8"))
    assert run(monkeypatch, "predict", saved["text-classification"]) == 2
    assert "Standard input is not utf-8: byte 0xf6 does not fit." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "generate"])
def test_an_encoding_of_arguments(command, base, monkeypatch, capsys):
    assert run(monkeypatch, command, base, "a film", "--encoding", "cp1252") == 2
    message = "but the inputs are arguments of the command: leave it out."
    assert message in capsys.readouterr().err


def test_second_texts_beside_other_inputs(saved, monkeypatch, capsys):
    given = ["--question", "a film", "--context", "a good film", "--text-pair", "bad"]
    assert run(monkeypatch, "predict", saved["question-answering"], *given) == 2
    message = "takes question= and context= by name, found text_pair, question, context"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "task, arguments, keys",
    [
        ("text-classification", ["a good film"], {"text", "label", "score", "probabilities"}),
        ("token-classification", ["a good film"], {"text", "entities"}),
        ("fill-mask", ["a [MASK] film"], {"text", "candidates"}),
        ("fill-mask", ["a [MASK] [MASK]"], {"text", "candidates"}),
        ("feature-extraction", ["a good film"], {"text", "vector"}),
        (
            "feature-extraction",
            ["a good film", "--text-pair", "a bad film"],
            {"text", "text_pair", "similarity"},
        ),
        (
            "question-answering",
            ["--question", "good film", "--context", "the actor was great"],
            {"question", "context", "text", "start", "end", "score"},
        ),
    ],
)
def test_predictions_of_every_task_without_the_task_option(
    task, arguments, keys, saved, monkeypatch, capsys
):
    found, told = said(monkeypatch, capsys, saved[task], *arguments)
    assert [set(line) for line in found] == [keys]
    assert f"task {task}, by its" in told


def test_compressed_tables_and_escaped_tabs(tmp_path):
    import gzip

    from finetune_tf.cli import options
    from finetune_tf.cli.reading import examples

    path = tmp_path / "d.csv.gz"
    path.write_bytes(gzip.compress(b"text\tlabel\na film, good\tyes\na film, bad\tno\n"))
    columns = options.arguments_of_source(["label"], delimiter=r"\t")
    assert examples(str(path), "test", columns).columns["text"] == ["a film, good", "a film, bad"]
