r"""Store what PyTorch computes for one small odd model of every family.

In ``FAMILY/TASK/`` next to this file: ``config.json`` and ``model.safetensors``, and in
``expected.npz`` the arrays of `pytorch.record`. Every family has text classification, every
decoder text generation, and every family that writes targets for sources text to text; BERT has the
other tasks as well, for their losses and heads.

`SEEDS` has the seed of each folder. The script was run with Python 3.11, transformers 5.24.0 and
torch 2.13.0 on a CPU; other releases may differ in the last bits::

    pip install "transformers>=5" torch
    cd tests && python -m references.make_families

Arguments restrict it to some families or folders::

    cd tests && python -m references.make_families llama bert/fill-mask
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from references.pytorch import fixed_config, make_inputs, make_model, record, save

HERE = Path(__file__).resolve().parent


#: The seed of each folder; a new family or task gets a row with a seed of its own.
SEEDS = {
    "bert/text-classification": 1,
    "distilbert/text-classification": 2,
    "roberta/text-classification": 3,
    "xlm-roberta/text-classification": 4,
    "camembert/text-classification": 5,
    "electra/text-classification": 6,
    "albert/text-classification": 7,
    "mpnet/text-classification": 8,
    "deberta/text-classification": 9,
    "deberta-v2/text-classification": 10,
    "modernbert/text-classification": 11,
    "nomic_bert/text-classification": 12,
    "gte/text-classification": 13,
    "eurobert/text-classification": 14,
    "bert/token-classification": 12,
    "bert/question-answering": 13,
    "bert/fill-mask": 14,
    "bert/feature-extraction": 15,
    "bert/text2text-generation": 16,
    "roberta/text2text-generation": 17,
    "xlm-roberta/text2text-generation": 18,
    "camembert/text2text-generation": 19,
    "electra/text2text-generation": 20,
    "gpt2/text-classification": 100,
    "gpt2/text-generation": 101,
    "llama/text-classification": 110,
    "llama/text-generation": 111,
    "mistral/text-classification": 120,
    "mistral/text-generation": 121,
    "qwen2/text-classification": 130,
    "qwen2/text-generation": 131,
    "qwen3/text-classification": 140,
    "qwen3/text-generation": 141,
    "t5/text2text-generation": 150,
    "mt5/text2text-generation": 151,
    "bart/text2text-generation": 152,
    "mbart/text2text-generation": 153,
    "pegasus/text2text-generation": 154,
    "marian/text2text-generation": 155,
}


def main(wanted: list[str]) -> None:
    """Write every checkpoint with its expected values.

    Args:
        wanted: What to write: ``FAMILY`` or ``FAMILY/TASK``; everything if empty.
    """
    known = {*SEEDS, *(name.partition("/")[0] for name in SEEDS)}
    if unknown := set(wanted) - known:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    for name, seed in SEEDS.items():
        family, _, task = name.partition("/")
        if wanted and not {family, name} & set(wanted):
            continue
        config = fixed_config(family, task)
        model = make_model(family, task, config, seed)
        folder = HERE / family / task
        save(model, config, folder)
        expected = record(model, task, make_inputs(model.config, task, seed))
        np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(sys.argv[1:])
