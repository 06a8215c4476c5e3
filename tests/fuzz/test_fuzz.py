"""Whatever is damaged: right numbers, or one of the library's errors, in little time and memory."""

import os
import random
import shutil
import traceback
import warnings
from pathlib import Path

import pytest
from helpers_models import write_checkpoint

from finetune_tf.errors import FinetuneError
from fuzz import targets
from fuzz.limits import limited

#: Cases of each target in the everyday suite, 300 in all; the slow suite runs ten times as many.
CASES = {
    **{f"config of {family}": 9 for family in targets.CLASSIFIERS},
    "safetensors": 35,
    "shards": 25,
    "HDF5": 20,
    "tokenizer": 31,
    "CSV": 30,
    "JSON Lines": 30,
    "arguments": 30,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("fuzz") / "bert")


@pytest.fixture(scope="module")
def target_of(checkpoint):
    targets.warm_up(checkpoint)
    made = {f"config of {family}": targets.config(family) for family in targets.CLASSIFIERS} | {
        "safetensors": targets.safetensors_header,
        "shards": targets.shards,
        "HDF5": targets.hdf5,
        "tokenizer": targets.tokenizer(checkpoint),
        "CSV": targets.csv,
        "JSON Lines": targets.jsonl,
        "arguments": targets.Arguments(checkpoint),
    }
    return made.__getitem__


def failures(target: targets.Target, folder: Path, checkpoint: Path, seeds: range) -> list[str]:
    """What came out of cases and should not; the seed makes a case again."""
    found = []
    for seed in seeds:
        case = folder / str(seed)
        case.mkdir()
        here = set(os.listdir(folder))
        try:
            with limited(folder, checkpoint.parent), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a case warns of is told to its user
                target(case, random.Random(seed))
        except FinetuneError as error:
            if not str(error).strip():
                found.append(f"seed {seed}: an error without a message")
        except BaseException as error:  # Rust's panics are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            found.append(f"seed {seed}: {''.join(traceback.format_exception(error, limit=-6))}")
        if set(os.listdir(folder)) != here:
            found.append(f"seed {seed}: it wrote outside of its folder")
        shutil.rmtree(case)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_damage_is_told_or_does_no_harm(name, target_of, checkpoint, tmp_path):
    found = failures(target_of(name), tmp_path, checkpoint, range(CASES[name]))
    assert not found, "\n\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_more_damage(name, target_of, checkpoint, tmp_path):
    found = failures(target_of(name), tmp_path, checkpoint, range(1000, 1000 + 10 * CASES[name]))
    assert not found, "\n\n".join(found)
