"""Steps and epochs on a GPU beside PyTorch, eager and compiled, within ten minutes.

    python benchmarks/gpu.py --data ../shared/data
    python benchmarks/gpu.py --data ../shared/data --rows 64 --small  # a check on a CPU

All sides run in the environment of this script, each job in a process of its own; a side whose
packages are missing, or that fails, is named in the table with its error. finetune_tf runs on
TensorFlow, there also compiled by XLA, and on JAX if it is installed. Jobs begin as long as
`--minutes` are not over, in rounds, so that every side is measured before one is measured again.
Writes benchmarks/results/gpu.json and gpu.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import speed

HERE = Path(__file__).resolve().parent
OURS = (("ours", "default"), ("ours", "compiled"), ("ours", "jax"))
PEERS = (("pytorch", "eager"), ("pytorch", "compile"))
# Epochs with one shape for all batches, which is what whole-model compilation is for.
EPOCH = (
    ("ours", "default"),
    ("ours", "compiled+packed128"),
    ("ours", "jax+packed128"),
    ("pytorch", "eager+grouped"),
    ("pytorch", "compile+grouped"),
)
STEP = ("step", "--steps", "30")
WORKLOADS = {
    "step, MiniLM size, 64 x 128": ((*STEP, "--batch", "64", "--length", "128"), OURS + PEERS),
    "step, BERT base, 32 x 128": (
        (*STEP, "--size", "base", "--batch", "32", "--length", "128"),
        OURS + PEERS,
    ),
    "3 epochs of SST-2, MiniLM, batches of 64": (
        ("epochs", "--epochs", "3", "--batch", "64"),
        EPOCH,
    ),
}
SMALL = {
    "step, MiniLM size, 2 x 8": ((*STEP, "--batch", "2", "--length", "8"), OURS + PEERS),
    "3 epochs of SST-2, MiniLM, batches of 8": (("epochs", "--epochs", "3", "--batch", "8"), EPOCH),
}


def run(side: str, setting: str, job: list[str], seconds: float) -> dict:
    """Runs one job; returns what it printed, or the error that ended it."""
    backend = "jax" if "jax" in setting.split("+") else "tensorflow"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"HF_HUB_OFFLINE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, HERE / "sides" / f"{side}.py", *job, "--setting", setting]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            cwd=HERE / "sides",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {seconds:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": lines[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(results: dict[tuple[str, str, str], list[dict]]) -> str:
    """Markdown: seconds and how many times the best of finetune_tf, and the epochs."""
    lines = ["| work | side | seconds | times ours | each epoch |", "|---|---|---|---|---|"]
    medians = {
        key: statistics.median(times)
        for key, found in results.items()
        if (times := [each["seconds"] for each in found if "error" not in each])
    }
    for (work, side, setting), found in results.items():
        own = [s for (w, of, _), s in medians.items() if w == work and of == "ours"]
        seconds = medians.get((work, side, setting))
        name = f"{'finetune_tf' if side == 'ours' else 'PyTorch'} {setting}"
        if seconds is None:
            error = found[0]["error"][:80] if found else "no time was left"
            lines.append(f"| {work} | {name} | failed: {error} | | |")
            continue
        ratio = f"{seconds / min(own):.2f}" if own else ""
        epochs = ", ".join(f"{s:.3g}" for s in found[0].get("epochs", ()))
        lines.append(f"| {work} | {name} | {seconds:.4g} | {ratio} | {epochs} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all sides in rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="only so many sentences an epoch")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--small", action="store_true", help="shapes that a CPU computes quickly")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    workloads = SMALL if arguments.small else WORKLOADS
    results: dict[tuple[str, str, str], list[dict]] = {
        (work, *side): [] for work, (_, sides) in workloads.items() for side in sides
    }
    for _ in range(arguments.rounds):
        for (work, side, setting), found in results.items():
            left = end - time.monotonic()
            if left < 5 or (found and "error" in found[-1]):
                continue
            job = [*workloads[work][0], "--dtype", arguments.dtype]
            job += ["--checkpoint", speed.checkpoint_of("base" if "base" in job else "minilm")]
            if job[0] == "epochs":
                job += ["--data", str(arguments.data.resolve())]
                job += ["--rows", str(arguments.rows)] if arguments.rows else []
            found.append(run(side, setting, job, left))
            print(json.dumps({"work": work, "side": side, "setting": setting} | found[-1]))
            sys.stdout.flush()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(("work", "side", "setting"), key, strict=True)) for key in results]
    content = [row | {"runs": found} for row, found in zip(rows, results.values(), strict=True)]
    (arguments.output / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
    text = table(results)
    (arguments.output / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
