"""`kill -9` at any moment of a save leaves the old checkpoint or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_checkpoints import BERTS

import finetune_tf as ft

TESTS = Path(__file__).resolve().parents[1]

KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from helpers_checkpoints import copy_checkpoint, read_weights, reference
import finetune_tf as ft
from finetune_tf.model import saving
from finetune_tf.families import FAMILIES
from finetune_tf.base.labels import Labels
from finetune_tf.model.model_info import ModelInfo
from finetune_tf.tasks import get_task
from helpers_checkpoints import table_of

# Arrays stand for variables, because a forked process must not touch TensorFlow.
class Variable:
    def __init__(self, path, array, value):
        self.path, self.array, self.shape = path, np.full_like(array, value), array.shape
    def __array__(self, dtype=None, copy=None):
        return self.array

source, _ = reference("relu")
opened = ft.checkpoints.open_checkpoint(source)
labels = Labels(["no", "maybe", "yes"])
stand_in = SimpleNamespace(config=opened.config, task=get_task("text-classification", labels))
rows = {row.tensors[0]: path for path, row in table_of(stand_in).items()}
stored = read_weights(source)

def model(value):
    info = ModelInfo("c", "t", "text-classification", labels, "pooler", opened.config, ())
    weights = []
    for name, array in stored.items():
        path = rows[name]
        turned = path.endswith("kernel")
        weights.append(Variable(path, array.T if turned else array, value))
    made = {"info": info, "weights": weights, "_layers": []}
    made |= {"tokenizer": None, "target_tokenizer": None}
    return SimpleNamespace(**vars(stand_in), **made)

folder = Path(sys.argv[1]) / "out"
rng = random.Random(0)
ft.messages.say = saving.say = lambda text: None
saving.save_pretrained(model(1.0), folder, value="1")
(folder / "notes.txt").write_text("kept")
ends = {"1": 0, "2": 0}
for _ in range(25):
    child = os.fork()
    if not child:
        for value in (2.0, 1.0) * 1000:
            saving.save_pretrained(model(value), folder, value=f"{value:.0f}")
        os._exit(1)
    time.sleep(rng.uniform(0.01, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    card = (folder / "README.md").read_text()
    (value,) = [value for value in ends if f"- **value**: {value}" in card]
    ends[value] += 1
    tensors = read_weights(folder)
    assert tensors.keys() == stored.keys()
    assert {x for tensor in tensors.values() for x in np.unique(tensor)} == {float(value)}
    assert ft.checkpoints.open_checkpoint(folder).config["id2label"]
    assert (folder / "notes.txt").read_text() == "kept"
    for path in folder.parent.iterdir():
        assert path == folder or path.name.startswith(".out-"), path
print(ends, len(list(folder.parent.iterdir())) - 1)
assert min(ends.values()) > 0, ends
ft.load(folder)
"""


def python(code, *arguments):
    """Runs code in a process that finds finetune_tf and the helpers."""
    path = f"{TESTS.parent}{os.pathsep}{TESTS}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_while_saving_leaves_the_old_or_the_new_checkpoint(tmp_path):
    process = python(KILLED, tmp_path)
    output, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    print(output)


SAVING = """
import sys
import finetune_tf as ft
model = ft.load(sys.argv[1])
for value in (1.0, 2.0) * 1000:
    for variable in model.weights:
        variable.assign(variable * 0.0 + value)
    model.save_pretrained(sys.argv[2], value=f"{value:.0f}")
"""


@pytest.mark.slow
def test_whole_processes_killed_while_saving(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = python(SAVING, BERTS / "relu", tmp_path / "out")
        for line in process.stdout:
            if line.startswith("Saved"):
                break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        model = ft.load(tmp_path / "out")
        values = {value for variable in model.weights for value in np.unique(variable)}
        assert values in ({1.0}, {2.0})
        card = (tmp_path / "out" / "README.md").read_text()
        assert f"- **value**: {values.pop():.0f}" in card
