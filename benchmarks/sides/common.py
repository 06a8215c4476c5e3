"""What all sides share: the job they are given, the data, the clock.

A side is a script that runs one job and prints one line of JSON. It imports nothing of the others,
since each has an environment of its own.
"""

import argparse
import csv
import json
import os
import statistics
import time
from pathlib import Path

BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
SIZES = {
    "minilm": BASE | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "base": BASE,
}
WARM_UP = 5  # steps that are not counted


def job() -> argparse.Namespace:
    """What the side is to do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=["step", "epochs", "predict", "first", "checkpoint"])
    parser.add_argument("--size", choices=list(SIZES), default="minilm")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--frozen", choices=["none", "backbone", "half"], default="none")
    parser.add_argument("--data", type=Path, help="a folder with the corpora")
    parser.add_argument("--corpus", default="sst2", help="a folder with train.csv")
    parser.add_argument("--rows", type=int, help="only so many rows")
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder with config, weights and tokenizer"
    )
    parser.add_argument("--setting", default="default", help="one of the side's own")
    return parser.parse_args()


def texts(
    folder: Path, split: str, rows: int | None, corpus: str = "sst2"
) -> tuple[list[str], list[int]]:
    """Sentences and their labels; tests are those of SST-2 always."""
    with open(folder / corpus / f"{split}.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))[:rows]
    return [line["text"] for line in lines], [int(line["label"]) for line in lines]


def summary(times: list[float]) -> dict:
    """Of the seconds of steps, without those that warm up."""
    times = times[WARM_UP:]
    return {"seconds": statistics.median(times), "all": times}


def since_start() -> float:
    """Seconds since this process was started."""
    with open("/proc/self/stat", encoding="ascii") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


class Clock:
    """The seconds of each epoch, by the clock and of all threads."""

    def __init__(self) -> None:
        self.marks = [(time.perf_counter(), time.process_time())]

    def mark(self) -> None:
        """Ends an epoch."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self) -> dict[str, object]:
        """Total, first epoch, and the median of the later ones."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        by_clock, by_processor = ([b[i] - a[i] for a, b in pairs] for i in (0, 1))
        return {
            "seconds": sum(by_clock),
            "processor": sum(by_processor),
            "first_epoch": by_processor[0],
            "later_epochs": statistics.median(by_processor[1:]),
        }


class StepClock:
    """The seconds of each step, by the clock and of all threads, from the end of one to the next.

    The first steps, which warm up, are not counted.
    """

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """Ends a step."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self) -> dict[str, float]:
        """Medians of wall-clock time and of processor time."""
        marks = self.marks[WARM_UP - 1 :]
        pairs = list(zip(marks, marks[1:], strict=False))
        seconds, processor = (statistics.median(b[i] - a[i] for a, b in pairs) for i in (0, 1))
        return {"seconds": seconds, "processor": processor}


def peak_mb() -> int:
    """The most memory that the process has had so far.

    Not `getrusage`: what it says is at least what the parent had when it started this process.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    return round(int(peak.split()[1]) / 1024)


def tell(result: dict, imported: int) -> None:
    """Prints the result with the peak memory of the process.

    Args:
        result: Of the job.
        imported: What `peak_mb` said when the frameworks were imported.
    """
    print(json.dumps(result | {"peak_mb": peak_mb(), "imported_mb": imported}), flush=True)
    os._exit(0)  # some frameworks take seconds to say goodbye
