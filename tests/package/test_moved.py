"""Modules that moved are found under their old names, which warn."""

import importlib
import subprocess
import sys

import pytest

import finetune_tf as ft
from finetune_tf._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_what_the_new_module_has(old):
    new = importlib.import_module(f"finetune_tf.{MOVED[old]}")
    module = importlib.import_module(f"finetune_tf.{old}")
    name = next(name for name in vars(new) if not name.startswith("_"))
    with pytest.warns(
        DeprecationWarning, match=f"finetune_tf.{old} is now finetune_tf.{MOVED[old]}; the old name"
    ):
        assert getattr(module, name) is getattr(new, name)


def test_what_a_module_never_had():
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(ImportError, match="cannot import name 'nothing'"),
    ):
        from finetune_tf.labels import nothing  # noqa: F401


def test_functions_of_the_same_name_stay():
    with pytest.warns(DeprecationWarning):
        from finetune_tf.stages import Stage
    assert Stage is ft.Stage
    assert ft.stages.__name__ == "stages" and callable(ft.stages)


@pytest.mark.slow
def test_importing_the_package_warns_of_nothing():
    code = "import finetune_tf, inspect; [inspect.getmodule(f[0]) for f in inspect.stack()]"
    subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:finetune_tf", "-c", code], check=True
    )


def test_old_names_of_methods():
    with pytest.warns(DeprecationWarning, match="Labels.number_of is deprecated"):
        assert ft.Labels(["no", "yes"]).number_of("yes") == 1
