"""What every test may use: quiet libraries and tiny checkpoints."""

import os
import random
import signal
import zlib

# Before TensorFlow and huggingface_hub are imported, which read them once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from helpers_decoders import write_decoder
from helpers_models import CHINESE, write_checkpoint
from helpers_text_to_text import T5_PARAMS, write_t5


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        default="1/1",
        help="K/N runs the K-th of N parts of the slow tests; the parts differ little in size",
    )


def pytest_collection_modifyitems(config, items):
    """Deselects the slow tests of other parts than `--part`; skips what needs TensorFlow."""
    backend = keras.backend.backend()
    for item in items:
        if backend != "tensorflow" and (needs := item.get_closest_marker("needs_tensorflow")):
            (reason,) = needs.args
            item.add_marker(pytest.mark.skip(reason=f"{backend}: {reason}"))
    part, parts = map(int, config.getoption("--part").split("/"))

    def is_in_part(item):
        # Tests of one case, which share a model, are in the same part.
        path, _, name = item.nodeid.partition("::")
        case = name.partition("[")[2] or name
        return zlib.crc32(f"{path} {case}".encode()) % parts == part - 1

    others = [i for i in items if i.get_closest_marker("slow") and not is_in_part(i)]
    if others:
        config.hook.pytest_deselected(items=others)
        deselected = set(others)
        items[:] = [item for item in items if item not in deselected]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seeds a test and its fixtures, so that the tests before it do not matter to it.

    Keras draws the seeds of its initializers and layers from Python's generator. TensorFlow's seed
    stays as it is: setting it discards all kernels, which makes the tests a tenth slower.
    """
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a random BERT with two blocks that knows a few English words."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """Folder of a random GPT-2 with two blocks that knows the same words."""
    return write_decoder(tmp_path_factory.mktemp("checkpoints") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory):
    """Folder of a random T5 that knows the same words and some German ones, with T5's prefixes."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-t5"
    return write_t5(folder, task_specific_params=T5_PARAMS)


@pytest.fixture(scope="session")
def tiny_chinese_bert(tmp_path_factory):
    """Folder of a random BERT whose words are single Chinese characters."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-chinese-bert"
    return write_checkpoint(folder, CHINESE)


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts the process, which may have been started with the signal ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
