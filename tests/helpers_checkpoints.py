"""Checkpoints with known numbers, and what turns one folder into another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from finetune_tf.families import FAMILIES
from finetune_tf.weights.table import Weight, prefixed

TESTS = Path(__file__).resolve().parent
BERTS = TESTS / "references" / "bert"
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
DECODER_INPUTS = ("decoder_input_ids", "decoder_attention_mask")


#: The families that read texts.
TEXT_FAMILIES = [name for name, family in FAMILIES.items() if family.image_processor is None]


def main_task(family: str) -> str:
    """The task of which `references/` has a folder for the family."""
    heads = FAMILIES[family].heads(FAMILIES[family].complete({}))
    tasks = ("text-classification", "text2text-generation", "image-classification")
    tasks += ("image-text-retrieval", "video-classification")
    return next(task for task in tasks if task in heads)


def reference(name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A checkpoint folder of `references/make_bert.py`, and what PyTorch gives for it."""
    folder = BERTS / name
    with np.load(folder / "expected.npz") as stored:
        return folder, dict(stored)


def inputs_of(expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's inputs among stored arrays."""
    return {name: expected[name] for name in INPUTS}


def copy_checkpoint(source: Path, folder: Path, **config: object) -> Path:
    """Copies config.json and weights, with some config keys changed; None takes a key out."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in {".safetensors", ".h5"}:
            shutil.copy2(path, folder)
    content = json.loads((source / "config.json").read_text()) | config
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder with one safetensors file."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def write_weights(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Replaces the weights of a folder."""
    from safetensors.numpy import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What a model says without dropout."""
    return np.asarray(model(inputs, training=False))


def table_of(model) -> dict[str, Weight]:
    """Path of each variable to its row, named as in PyTorch's task model."""
    family = FAMILIES[model.config["model_type"]]
    rows = {}
    head = family.head(model.task.name, model.config)
    for row in [*head.weights, *prefixed(family.weights(model.config), family.tensor_prefix)]:
        for path in row.variables:
            rows.setdefault(path, row)  # the first name of a variable counts
    return rows


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    """A process that runs code and finds finetune_tf; its standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


# The package without its __init__, which imports Keras: such a process starts at once.
_LIGHT = """
import sys, types
from pathlib import Path
sys.modules["finetune_tf"] = types.ModuleType("finetune_tf")
sys.modules["finetune_tf"].__path__ = [sys.argv[1]]
"""


def light_python(code: str, *arguments: object) -> subprocess.Popen:
    """As `python`, for code that needs single modules; its arguments begin at sys.argv[2]."""
    return python(_LIGHT + code, TESTS.parent / "finetune_tf", *arguments)
