"""Importing finetune_tf loads no heavy modules and has no side effects."""

import subprocess
import sys

import pytest

import finetune_tf as ft

SETTINGS = """
import logging, os, random, sys, warnings
import numpy
import keras

def settings():
    return (
        dict(os.environ), list(warnings.filters), logging.getLogger().level,
        list(logging.getLogger().handlers), keras.config.floatx(),
        keras.config.dtype_policy().name, numpy.random.get_state()[1].tolist(), random.getstate(),
    )

before, modules = settings(), set(sys.modules)
sys.stdout.flush(); sys.stderr.flush()
print("<<<", flush=True); print("<<<", file=sys.stderr, flush=True)
import finetune_tf
print(">>>", flush=True); print(">>>", file=sys.stderr, flush=True)
assert settings() == before
heavy = {"transformers", "tensorflow_datasets", "huggingface_hub", "typer", "torch"}
print(sorted(heavy & (set(sys.modules) - modules)))
"""


def test_import_has_no_side_effects_and_loads_no_heavy_modules():
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS], capture_output=True, text=True, check=True
    )

    for stream in (done.stdout, done.stderr):
        assert stream.partition("<<<")[2].partition(">>>")[0].strip() == ""
    assert done.stdout.splitlines()[-1] == "[]"


def test_class_names_of_transformers_4_are_loaded_lazily():
    assert ft.TFBertForSequenceClassification.__name__ == "TFBertForSequenceClassification"
    with pytest.raises(ImportError, match="TFBertForEverything.*TFBertForSequenceClassif"):
        _ = ft.TFBertForEverything
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ft.nonsense


def test_every_public_name_exists_and_is_documented():
    for name in ft.__all__:
        thing = getattr(ft, name)
        assert name == "__version__" or thing.__doc__
