"""The examples in docstrings run and give what they say.

An example may use what its reader has anyway: `ft`, `np`, `keras`, a small `train` set and `test`
set of texts with two labels, `checkpoint` (the folder of a tiny BERT), a text classifier `model`
made from it and compiled, `decoder` (the folder of a tiny GPT-2), `images` (a folder with three
images in each of the class folders `red` and `blue`), `videos` (one with clips in `left` and
`right`), `image_checkpoint` and `clip_checkpoint` (the folders of a tiny ViT and of a tiny CLIP),
and a current folder that is empty apart from those. A class is imported from the module that
documents it.
"""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT, write_classes
from helpers_towers import write_towers
from helpers_videos import write_videos

import finetune_tf as ft
from finetune_tf import messages

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TEXTS = ["a very good film", "the actor was great", "a fine story", "a bad film", "a dull story"]
VALUES = ["good", "good", "good", "bad", "bad"]


def examples_in_docstrings() -> dict[str, doctest.DocTest]:
    """By the name of what is documented."""
    found = {}
    for info in pkgutil.walk_packages(ft.__path__, "finetune_tf."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            if test.examples:
                found[test.name.removeprefix("finetune_tf.")] = test
    return found


EXAMPLES = examples_in_docstrings()
# Examples that train or generate take longer than all others together.
SLOW = (
    "training.callbacks.",
    "recipe.",
    "model.finetune_model.FineTuneModel",
    "model.feature_cache.",
    "model.interpolation.",
    "evaluation.interpolation.",
    "generation.",
    "search.",
    "explanations.",
    "fewshot.",
    "evaluation.live_curves.",
    "evaluation.tensorboard.",
    "training.averages.",
    "training.label_presets.",
    "training.objectives.",
    "training.progress.",
    "training.rates.",
    "training.resuming.",
    "training.unfreezing.",
    "meta.",
    "model.exports.exported.",
    "calibration.temperature.calibrate",
    "diagnosis.",
)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith(SLOW) else ()) for n in EXAMPLES],
)
def test_an_example_gives_what_it_says(name, tiny_bert, tiny_decoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = EXAMPLES[name]
    keras.utils.set_random_seed(0)
    data = ft.data.from_arrays(TEXTS, VALUES, name="train")
    with messages.quiet():
        model = ft.load(tiny_bert, labels=data.labels)
        model.compile(**ft.presets.cross_entropy())
        test.globs.update(ft=ft, np=np, keras=keras, train=data, test=data, model=model)
        test.globs.update(checkpoint=str(tiny_bert), decoder=str(tiny_decoder))
        test.globs.update(images=str(write_classes(tmp_path / "images")))
        test.globs.update(image_checkpoint=str(TINY_VIT))
        if "clip_checkpoint" in test.docstring:
            test.globs.update(clip_checkpoint=str(write_towers(tmp_path / "clip")))
        test.globs.update(videos=str(write_videos(tmp_path / "videos")))
        report = []
        outcome = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(
            test, out=report.append
        )
    assert not outcome.failed, "".join(report)
    assert outcome.attempted


def test_the_public_functions_have_examples():
    public = [getattr(ft, name) for name in ft.__all__]
    without = [
        thing.__name__
        for thing in public
        if callable(thing)
        and f"{thing.__module__}.{thing.__qualname__}".removeprefix("finetune_tf.") not in EXAMPLES
    ]
    assert not without
