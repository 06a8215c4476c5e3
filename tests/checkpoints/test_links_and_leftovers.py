"""A save keeps links as links, waits for nothing, and clears what killed saves left."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from helpers_checkpoints import light_python
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.base.files import unfinished, unfinished_folder, write_text
from finetune_tf.errors import CheckpointError


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ft.load(tiny_bert, labels=["bad", "good"])


@pytest.fixture
def out(tmp_path):
    """A folder with one file to keep."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("kept")
    return tmp_path / "out"


def test_links_stay_links_and_nothing_is_copied_through_them(model, out, tmp_path):
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (out / "to_file").symlink_to(secret / "key")
    (out / "to_folder").symlink_to(secret)
    (out / "relative").symlink_to("../elsewhere/key")
    (out / "dangling").symlink_to(tmp_path / "nowhere")
    (out / "in_a_folder").mkdir()
    (out / "in_a_folder" / "link").symlink_to(secret)
    model.save_pretrained(out)
    links = {str(p.relative_to(out)): os.readlink(p) for p in out.rglob("*") if p.is_symlink()}
    assert links == {
        "to_file": str(secret / "key"),
        "to_folder": str(secret),
        "relative": "../elsewhere/key",
        "dangling": str(tmp_path / "nowhere"),
        "in_a_folder/link": str(secret),
    }
    assert (out / "relative").read_text() == "secret"
    assert (out / "notes.txt").read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()
    assert [p.name for p in secret.iterdir()] == ["key"]


def test_a_file_of_the_checkpoint_that_is_a_link(model, out, tmp_path):
    """As in the snapshots of the Hub's cache: the link gives way, what it points to stays."""
    (tmp_path / "blob").write_text("{}")
    (out / "config.json").symlink_to(tmp_path / "blob")
    model.save_pretrained(out)
    assert not (out / "config.json").is_symlink()
    assert (tmp_path / "blob").read_text() == "{}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("place", ["pipe", "below/pipe"])
def test_a_pipe_is_refused_before_anything_is_written(model, out, place):
    (out / place).parent.mkdir(exist_ok=True)
    os.mkfifo(out / place)
    for write in (model.save_pretrained, model.export):
        with pytest.raises(CheckpointError, match=f"out/{place} is a pipe, which cannot be copied"):
            write(out)
    assert (out / "notes.txt").read_text() == "kept"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets")
def test_a_socket_is_refused(model, out, monkeypatch):
    monkeypatch.chdir(out)  # the path of a socket has at most a hundred characters
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        monkeypatch.undo()
        with pytest.raises(CheckpointError, match="is a socket, which cannot be copied"):
            model.save_pretrained(out)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("what", ["a pipe", "a broken link", "a folder", "a link to a pipe"])
@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "model.safetensors", "1_Pooling/config.json", "modules.json"),
        *("sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    ],
)
def test_what_stands_in_the_place_of_a_file_does_not_count_as_missing(name, what, tmp_path):
    folder = write_checkpoint(tmp_path / "c")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
        if what == "a link to a pipe":
            os.mkfifo(tmp_path / "elsewhere")
    start = time.monotonic()
    if what == "a folder" and name == "vocab.txt":  # a subfolder, with tokenizer.json beside it
        assert ft.load(folder).tokenizer.is_fast
        return
    with pytest.raises(CheckpointError, match=f"{name} is {what.replace('link to a ', '')}, not"):
        _ = ft.load(folder).tokenizer
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["a\0b", "n" * 300, "~nobody_at_all/x", "\ud800"])
def test_names_that_can_be_no_folder(model, name, tmp_path):
    where = name if name.startswith("~") else f"{tmp_path}/{name}"
    calls = [
        lambda: model.save_pretrained(where),
        lambda: model.export(where),
        lambda: ft.load_exported(where),
        lambda: model.tokenizer.save_pretrained(where),
        lambda: ft.data.read_tokens(where),
        lambda: model.config.save_pretrained(where),
    ]
    for call in calls:
        with pytest.raises(ft.errors.FinetuneError):
            call()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, b"folder", 3])
def test_what_is_no_path_at_all(model, path):
    with pytest.raises(CheckpointError, match="A path must be a string or a Path, found"):
        model.save_pretrained(path)


def test_a_name_of_the_greatest_length(model, tmp_path):
    assert model.save_pretrained(tmp_path / ("n" * 255)).is_dir()
    write_text(tmp_path / ("f" * 255), "whole")
    assert (tmp_path / ("f" * 255)).read_text() == "whole"


# Begins to write beside "out" or "file", says so, and waits.
WRITING = """
import time
from finetune_tf.base.files import unfinished, unfinished_folder

path = Path(sys.argv[2])
with (unfinished(path) if path.name == "file" else unfinished_folder(path, ())) as beside:
    (beside if path.name == "file" else beside / "part").write_text("half")
    print(beside, flush=True)
    time.sleep(600)
"""


def begin(path):
    """A process in the middle of a save, and what it is writing to."""
    process = light_python(WRITING, path)
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("kind", ["out", "file"])
def test_the_next_save_clears_what_a_killed_one_left(kind, tmp_path):
    path = tmp_path / kind
    if kind == "out":
        path.mkdir()
    running, theirs = begin(path)
    killed, left = begin(path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert left.exists()
        mine = tmp_path / f".{kind}-archives"  # a name of the user's that looks alike
        mine.mkdir()
        if kind == "out":
            with unfinished_folder(path, ()) as beside:
                (beside / "whole").write_text("whole")
        else:
            write_text(path, "whole")
        assert not left.exists()
        assert theirs.exists()  # its save is running
        assert mine.is_dir()
    finally:
        running.kill()
        running.communicate()
    write_text(tmp_path / "file", "again")
    with unfinished_folder(tmp_path / "out", ()):
        pass
    assert not theirs.exists()


def test_two_saves_of_one_process_at_once(tmp_path):
    with unfinished(tmp_path / "file") as first, unfinished(tmp_path / "file") as second:
        assert first != second
        assert first.exists()
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_save_left_is_kept_while_it_may_be_the_only_copy(tmp_path):
    """Without exchange of folders, a kill between two renames leaves two whole neighbours."""
    running, left = begin(tmp_path / "out")
    running.kill()
    running.communicate()
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with pytest.raises(ZeroDivisionError), unfinished_folder(tmp_path / "out", ()):
        _ = 1 / 0
    assert left.exists()
    with unfinished_folder(tmp_path / "out", ()):
        pass
    assert not left.exists()
