r"""Store what PyTorch computes for one small odd model of every family.

In ``FAMILY/TASK/`` next to this file: ``config.json`` and ``model.safetensors``, and in
``expected.npz`` the arrays of `pytorch.record`. Every family has text classification; BERT has
the other tasks as well, for their losses and heads.

Seeds are fixed. It was run with Python 3.11, transformers 5.24.0 and torch 2.13.0 on a CPU; other
releases may differ in the last bits::

    pip install "transformers>=5" torch
    cd tests && python -m references.make_families

Arguments restrict it to some families or folders::

    cd tests && python -m references.make_families llama bert/fill-mask
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from references.pytorch import (
    DECODERS,
    FAMILIES,
    TASKS,
    fixed_config,
    make_inputs,
    make_model,
    record,
    save,
)

HERE = Path(__file__).resolve().parent


def main(wanted: list[str]) -> None:
    """Write every checkpoint with its expected values.

    Args:
        wanted: What to write: ``FAMILY`` or ``FAMILY/TASK``; everything if empty.
    """
    pairs = [(family, "text-classification") for family in FAMILIES]
    pairs += [(family, "text-generation") for family in DECODERS]
    others = [t for t in TASKS if t not in ("text-classification", "text-generation")]
    pairs += [("bert", task) for task in others]
    known = {name for family, task in pairs for name in (family, f"{family}/{task}")}
    if unknown := set(wanted) - known:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    for seed, (family, task) in enumerate(pairs, start=1):
        if wanted and not {family, f"{family}/{task}"} & set(wanted):
            continue
        config = fixed_config(family, task)
        model = make_model(family, task, config, seed)
        folder = HERE / family / task
        save(model, config, folder)
        expected = record(model, task, make_inputs(model.config, task, seed))
        np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(sys.argv[1:])
