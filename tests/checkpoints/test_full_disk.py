"""On a full disk every writer gives the library's error and leaves what was there.

The disk is a real one of a megabyte, in memory; the tests are skipped where nothing may be mounted.
"""

import os
import subprocess

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.base.files import write_text
from finetune_tf.data import feature_store
from finetune_tf.errors import CacheError, CheckpointError, DataError, FinetuneError
from finetune_tf.recipe.recipe import FinetuneResult


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"mount cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="module")
def model(tiny_bert):
    return ft.load(tiny_bert, labels=["bad", "good"])


@pytest.fixture(scope="module")
def films():
    return ft.data.from_arrays(["the film was good"] * 60, ["bad", "good"] * 30)


@pytest.fixture(scope="module")
def report(model, films):
    return ft.evaluate(model, films, baseline=None)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "filler")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def leave(folder, free):
    """Fills the disk but for so many bytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(folder)
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_bsize - free)))


def fails(disk, error, told, free, write):
    """Whether a writer fails as it should and changes nothing; None if there was room enough."""
    before = contents(disk)
    leave(disk, free)
    try:
        write()
    except error as caught:
        assert told in str(caught)
        assert contents(disk) == before
        assert not any(".unfinished" in path.name for path in disk.rglob(".*"))
        return True
    finally:
        (disk / "filler").unlink()
    return None


@pytest.mark.parametrize(
    ("name", "error"),
    [("checkpoint", CheckpointError), ("tokenizer", CheckpointError), ("report", DataError),
     ("page", DataError), ("config", CheckpointError), ("tokens", CheckpointError),
     ("text", CheckpointError)],
)  # fmt: skip
def test_writers(name, error, disk, model, films, report):
    where = disk / name
    write = {
        "checkpoint": lambda: model.save_pretrained(where, note="second"),
        "tokenizer": lambda: model.tokenizer.save_pretrained(where),
        "report": lambda: report.save(where),
        "page": lambda: report.save_html(where / "page.html"),
        "config": lambda: model.config.save_pretrained(where),
        "tokens": lambda: ft.data.write_tokens([films] * 20, model, where),
        "text": lambda: write_text(where / "a.txt", "long " * 2000),
    }[name]
    told = "Existing files are unchanged"
    assert fails(disk, error, told, 0, write)
    write()
    assert contents(where)
    results = [fails(disk, error, told, free, write) for free in (0, 4096, 8192, 40_000)]
    assert results[0] or name == "config"
    assert any(results)


@pytest.mark.slow
def test_an_export(disk, model):
    told = "export cannot be written"
    for free in (0, 20_000, 150_000):  # before the files, in the weights, in the graph
        assert fails(disk, CheckpointError, told, free, lambda: model.export(disk / "export"))


def test_a_run(disk, model, report):
    result = FinetuneResult(model, {"loss": [1.0, 0.5]}, report, {"epochs": 2})
    told = "cannot be written"
    with pytest.raises(AssertionError):  # its files are whole one by one, not the folder
        assert fails(disk, FinetuneError, told, 130_000, lambda: result.save(disk / "run")) is None
    for path in (disk / "run").rglob("*.json"):
        assert path.stat().st_size


def test_features(disk, model, films, monkeypatch):
    """Without room given first, the process would end with SIGBUS."""
    mean = ft.load(model.info.tokenizer, labels=["bad", "good"], pooling="mean")
    ft.train_only(mean, ft.select.blocks(-1) | ft.select.head())
    many = ft.data.from_arrays(["the film was good " * 4] * 500, ["bad", "good"] * 250)

    def write():
        many.batches(ft.cache_features(mean, disk / "features"))

    assert fails(disk, CacheError, "free. Store them elsewhere", 0, write)
    # Another program may fill the disk after the first look at it.
    monkeypatch.setattr(feature_store, "_refuse_too_large", lambda *_: None)
    for free in (0, 100_000, 600_000):
        assert fails(disk, CacheError, "No space left on device", free, write)


def test_room_is_given_without_changing_a_file(tmp_path, monkeypatch):
    for fallback in (False, True):
        path = tmp_path / f"{fallback}.npy"
        array = np.lib.format.open_memmap(path, "w+", np.float32, (1000, 700))
        array[:3] = 7
        array.flush()
        before = path.read_bytes()
        assert path.stat().st_blocks * 512 < len(before)
        if fallback:
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
            del array
            array = np.lib.format.open_memmap(path, "w+", np.float32, (1000, 700))
            array.flush()
            before = path.read_bytes()
        feature_store.allocate(path)
        assert path.read_bytes() == before
        assert path.stat().st_blocks * 512 >= len(before)


def test_the_reviews(disk):
    assert fails(
        disk,
        DataError,
        "cannot be prepared in",
        30_000,
        lambda: ft.data.reviews("test", data_dir=disk / "tfds"),
    )
