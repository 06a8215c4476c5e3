"""What a process imports up to its first training step, and that Keras stays complete."""

import subprocess
import sys

import pytest

# Packages that a training of texts does without. Keras itself imports huggingface_hub, and
# TensorFlow imports SciPy, and JAX if it is installed.
HEAVY = (
    "sklearn",
    "pandas",
    "matplotlib",
    "transformers",
    "tensorflow_datasets",
    "torch",
    "IPython",
)

STEP = """
import sys
sys.modules["jax"] = None  # as if it were not installed
import finetune_tf as ft
model = ft.load(sys.argv[1], labels=["bad", "good"])
texts = ft.data.from_arrays(["a good film", "a bad film"], ["good", "bad"])
history = model.fit(texts.batches(model, batch_size=2), verbose=0)
assert len(history.history["loss"]) == 1
loaded = {name.partition(".")[0] for name in sys.modules if "." in name}  # more than a name
print(sorted(loaded & set(sys.argv[2:])))
"""

LAZY = """
import sys
import finetune_tf, keras
assert not {"sklearn", "matplotlib", "pandas", "transformers"} & set(sys.modules)
from keras.wrappers import SKLearnClassifier
from sklearn.base import BaseEstimator
assert issubclass(SKLearnClassifier, BaseEstimator)
assert keras.wrappers.SKLearnClassifier is SKLearnClassifier
assert callable(keras.visualization.plot_image_gallery)
print([finder for finder in sys.meta_path if type(finder).__module__.startswith("finetune_tf")])
"""


def printed(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_first_step_imports_no_package_that_it_does_not_need(tiny_bert):
    assert printed(STEP, tiny_bert, *HEAVY) == "[]"


@pytest.mark.slow
def test_the_parts_of_keras_that_are_imported_later_are_complete():
    assert printed(LAZY) == "[]"
