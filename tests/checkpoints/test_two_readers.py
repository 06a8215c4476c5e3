"""A folder is read as one version of it, and a tokenizer's calls do not meet each other."""

import contextlib
import copy
import json
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers_checkpoints import light_python, python
from helpers_models import ENGLISH, SPECIAL, write_checkpoint
from transformers import AutoTokenizer

import finetune_tf as ft
from finetune_tf.checkpoints import open_checkpoint
from finetune_tf.checkpoints.tokenizers import load_tokenizer
from finetune_tf.errors import CheckpointError, FinetuneError

TF4 = Path(__file__).parents[1] / "fixtures" / "tf4" / "bert" / "text-classification"
# Saves two versions in turn, as `save_pretrained` does, but without a model.
WRITER = """
import shutil, time
from finetune_tf.base import files

files._sync_to_disk = lambda path: None  # saves more often than a disk could take
versions, folder = [Path(name) for name in sys.argv[2:4]], Path(sys.argv[4])
for i in range(10**6):
    if i == 2:
        print("ready", flush=True)
    stale = ("config*", "model*", "tokenizer*", "vocab*", "1_Pooling")
    with files.unfinished_folder(folder, stale) as beside:
        shutil.copytree(versions[i % 2], beside, dirs_exist_ok=True)
    time.sleep(0.02)
"""


def version(folder, number):
    """A checkpoint that says its number in config, weights, vocabulary and pooling."""
    words = list(reversed(ENGLISH)) if number else ENGLISH
    write_checkpoint(folder, words, blocks=1, seed=number, version=number)
    modes = {"pooling_mode_mean_tokens": bool(number), "pooling_mode_cls_token": not number}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


@contextlib.contextmanager
def writing(process):
    """A process that writes for as long as the block runs."""
    try:
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_what_is_read_is_of_one_save(tmp_path):
    versions = [version(tmp_path / name, i) for i, name in enumerate(("zero", "one"))]
    weights = [open_checkpoint(folder).tensors["embeddings.word_embeddings.weight"].read()
               for folder in versions]  # fmt: skip
    vocabularies = [load_tokenizer(folder).get_vocab() for folder in versions]
    folder = tmp_path / "out"
    version(folder, 0)
    seen, count = set(), 0
    with writing(light_python(WRITER, *versions, folder)):
        end = time.monotonic() + 8
        while time.monotonic() < end and (len(seen) < 2 or count < 60):
            count += 1
            found = open_checkpoint(folder)
            number = found.config["version"]
            time.sleep(0.003)  # the writer goes on before the rest is looked at
            values = found.tensors["embeddings.word_embeddings.weight"].read()
            np.testing.assert_array_equal(values, weights[number])
            assert found.modules.pooling == ("mean" if number else "cls")
            tokenizer = load_tokenizer(folder, found.tokenizer_files)
            assert tokenizer.get_vocab() == vocabularies[number]
            seen.add(number)
    assert seen == {0, 1}


@pytest.mark.parametrize("source", ["safetensors", "tf4"])
def test_weights_read_late_are_those_of_the_load(tmp_path, source):
    folder = tmp_path / "out"
    version(folder, 0) if source == "safetensors" else shutil.copytree(TF4, folder)
    name = "embeddings.word_embeddings.weight"
    expected = open_checkpoint(folder).tensors[name].read()
    opened = open_checkpoint(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    np.testing.assert_array_equal(opened.tensors[name].read(), expected)


def test_a_tokenizer_used_late_is_that_of_the_load(tmp_path):
    folder = version(tmp_path / "out", 0)
    model = ft.load(folder)
    version(tmp_path / "one", 1)
    (tmp_path / "out").rename(tmp_path / "old")
    (tmp_path / "one").rename(tmp_path / "out")
    assert model.tokenizer.convert_tokens_to_ids(ENGLISH[0]) == len(SPECIAL)
    assert model.tokenizer.name_or_path == str(folder)
    assert ft.load(folder).tokenizer.convert_tokens_to_ids(ENGLISH[-1]) == len(SPECIAL)


def test_files_that_are_put_back_are_found(tmp_path):
    folder = write_checkpoint(tmp_path / "out")
    vocabulary = (folder / "vocab.txt").read_text()
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    model = ft.load(folder)
    with pytest.raises(CheckpointError, match="There is no tokenizer in"):
        _ = model.tokenizer
    (folder / "vocab.txt").write_text(vocabulary)
    assert model.tokenizer.convert_tokens_to_ids("film") == vocabulary.split().index("film")


SAVING = """
import sys
import finetune_tf as ft
model = ft.load(sys.argv[1], labels=["zero", "one"])
for i in range(10**6):
    for variable in model.weights:
        variable.assign(variable * 0.0 + i % 7)
    model.config["version"] = i % 7
    with ft.messages.quiet():
        model.save_pretrained(sys.argv[2])
    if not i:
        print("ready", flush=True)
"""


@pytest.mark.slow
def test_sixty_loads_while_another_process_saves(tiny_bert, tmp_path):
    seen = set()
    with writing(python(SAVING, tiny_bert, tmp_path / "out")):
        for _ in range(60):
            model = ft.load(tmp_path / "out")
            values = {float(value) for v in model.weights for value in np.unique(v)}
            assert values == {float(model.config["version"])}
            assert len(model.tokenizer) == len(SPECIAL) + len(ENGLISH)
            seen |= values
    assert len(seen) > 1


LONG = " ".join(["the film was very good"] * 6)


def calls_in_threads(tokenizers, count):
    """Asks for many lengths at once; returns how many rows came out at another length."""

    def call(i):
        wanted = 3 + i % 15
        padding = "max_length" if i % 2 else False
        given = tokenizers[i % len(tokenizers)]
        rows = given([LONG] * 3, truncation=True, max_length=wanted, padding=padding)["input_ids"]
        return sum(len(row) != wanted for row in rows) + (len(given(LONG)["input_ids"]) != 32)

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(call, range(count)))


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_tokenizer_in_several_threads(tiny_bert, count):
    tokenizer = load_tokenizer(tiny_bert)
    tokenizers = [
        tokenizer,
        copy.copy(tokenizer),  # which has the same Rust object inside
        copy.deepcopy(tokenizer),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    assert calls_in_threads(tokenizers, count) == 0


@pytest.mark.parametrize("whose", ["the checkpoint's", "the user's"])
def test_examples_and_a_users_calls_at_once(whose, tiny_bert):
    model = ft.load(tiny_bert, labels=["bad", "good"])
    if whose == "the user's":
        model.tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    examples = ft.data.from_arrays([LONG] * 8, ["bad", "good"] * 4)
    wrong, end = [], threading.Event()

    def call():
        while not end.is_set():
            ids = model.tokenizer(LONG, truncation=True, max_length=7)["input_ids"]
            wrong.extend([len(ids)] * (len(ids) != 7))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for _ in range(40):
            rows = examples.encoded(model, max_length=11).inputs["input_ids"]
            assert {len(row) for row in rows} == {11}
    finally:
        end.set()
        thread.join()
    assert not wrong


def test_the_last_call_is_not_saved_with_the_tokenizer(tiny_bert, tmp_path):
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer([LONG, "film"], truncation=True, max_length=6, padding=True)
    with contextlib.suppress(ValueError, FinetuneError):
        tokenizer(LONG, truncation=True, max_length=6, stride=9)
    assert tokenizer.backend_tokenizer.truncation is tokenizer.backend_tokenizer.padding is None
    tokenizer.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    assert stored["truncation"] is stored["padding"] is None
    tokenizer.add_tokens(["[NEW]"])
    assert len(tokenizer("[NEW]")["input_ids"]) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_call(tiny_bert):
    from finetune_tf.checkpoints import return_tensors

    tokenizer = load_tokenizer(tiny_bert)
    held, end = threading.Event(), threading.Event()

    def hold():
        with return_tensors.without_shared_state(tokenizer):
            held.set()
            end.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    child = os.fork()
    if not child:
        os._exit(0 if return_tensors._lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    end.set()
    thread.join()
    assert status == 0
