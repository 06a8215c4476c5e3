"""The folder of a run is written atomically, and does not overwrite another run by default."""

import json

import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.errors import CheckpointError, DataError

TEXTS = ["a very good film", "the actor was great", "a very bad film", "the actor was poor"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a report and one without."""
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one-block", blocks=1)
    examples = ft.data.from_arrays(TEXTS * 2, ["good", "good", "bad", "bad"] * 2, name="toy")
    options = {"epochs": 1, "batch_size": 8, "verbose": 0}
    with_report = ft.finetune(checkpoint, examples, examples, examples, seed=1, **options)
    return with_report, ft.finetune(checkpoint, examples, examples, seed=2, **options)


@pytest.mark.slow
def test_the_page_of_a_run_has_its_curves_and_settings(runs, tmp_path):
    folder = runs[0].save(tmp_path / "run")
    page = (folder / "report.html").read_text("utf-8")
    assert "Learning curves" in page and "    seed=1," in page

    path = runs[0].save_html(tmp_path / "page.html", "zh", explanations=1)
    assert "学习曲线" in path.read_text("utf-8")
    with pytest.raises(DataError, match="This run has no report, because it had no test examples"):
        runs[1].save_html(tmp_path / "page.html")


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_second_run_raises_an_error_and_keeps_the_first(runs, tmp_path):
    folder = runs[0].save(tmp_path / "run")
    before = (folder / "settings.json").read_text()

    message = (
        r"/run already contains checkpoint, history.json, history.png, report.html, report.json, "
        r"report.png, report.txt, settings.json. Choose another folder, or replace these files "
        r"with overwrite=True."
    )
    with pytest.raises(CheckpointError, match=message):
        runs[1].save(folder)
    assert (folder / "settings.json").read_text() == before


@pytest.mark.slow
def test_overwriting_removes_the_first_run_and_keeps_other_files(runs, tmp_path):
    folder = runs[0].save(tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints").mkdir()  # a name that only begins as one of ours
    (folder / "checkpoint" / "old.txt").write_text("of the first run")

    assert runs[1].save(folder, overwrite=True) == folder

    kept = {"notes.txt", "checkpoints"}
    assert names(folder) == {"checkpoint", "settings.json", "history.json", "history.png"} | kept
    assert not (folder / "checkpoint" / "old.txt").exists()
    assert json.loads((folder / "settings.json").read_text())["seed"] == 2


def test_a_run_of_an_earlier_version_is_recognized(runs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"seed": 1}')
    with pytest.raises(CheckpointError, match="already contains config.json"):
        runs[1].save(folder)
    assert "config.json" not in names(runs[1].save(folder, overwrite=True))


def test_other_files_do_not_count_as_a_run(runs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert "notes.txt" in names(runs[1].save(tmp_path / "run"))


def test_the_tokenizer_is_found_in_the_folder_afterwards(runs, tmp_path, capsys):
    folder = runs[1].save(tmp_path / "run")
    assert runs[1].model.info.tokenizer == str(folder / "checkpoint")
    printed = capsys.readouterr().out
    assert printed == (
        f"Saved {folder}/checkpoint; opens in transformers.BertForSequenceClassification.\n"
    )
    assert (folder / "checkpoint" / "tokenizer.json").is_file()


def test_a_failed_save_does_not_change_the_first_run(runs, tmp_path, monkeypatch):
    folder = runs[0].save(tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(type(runs[0].report), "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))  # fmt: skip  # noqa: E501

    with pytest.raises(CheckpointError, match="No space left on device"):
        runs[0].save(folder, overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == {"run"}


def test_a_checkpoint_is_not_replaced_by_a_run(runs, tmp_path):
    folder = runs[1].save(tmp_path / "run") / "checkpoint"
    for overwrite in (False, True):
        with pytest.raises(
            CheckpointError, match="already contains config.json|is a checkpoint and"
        ):
            runs[1].save(folder, overwrite=overwrite)
    assert ft.load(folder).labels == ("bad", "good")


def test_the_current_folder_raises_an_error(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is the current working directory or a parent of it"):
        runs[1].save(".")
    assert names(tmp_path) == set()


def test_a_name_that_is_too_long_for_a_folder(runs, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written .File name too long"):
        runs[1].save(tmp_path / ("n" * 300))
    assert names(tmp_path) == set()
