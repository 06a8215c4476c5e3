"""How long a training step with adapters takes, beside PEFT: MiniLM, in one run.

    python benchmarks/adapters.py [--batch 16 --length 32 --rounds 5]

Needs PyTorch and PEFT (the extra `parity`). Each side runs in a process of its own, and the rounds
of all sides are interleaved, so that a busy moment of the machine affects all of them. Seconds are
wall-clock time; processor seconds count all threads and depend less on what else runs. Writes
benchmarks/results/adapters.json and adapters.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import speed

HERE = Path(__file__).resolve().parent
SETTINGS = ("full", "lora-qv", "lora-all", "dora-all", "ia3")
NAMES = {
    "full": "all weights",
    "lora-qv": "LoRA, query and value",
    "lora-all": "LoRA, all layers of the blocks",
    "dora-all": "DoRA, all layers of the blocks",
    "ia3": "IA3",
}
SIDES = ("ours", "peft")
KEYS = ("processor", "seconds", "peak_mb")


def run(side: str, setting: str, arguments: argparse.Namespace, checkpoint: str) -> dict:
    """Returns what one side printed, or the error that ended it."""
    job = ["step", "--batch", str(arguments.batch), "--length", str(arguments.length)]
    job += ["--steps", str(arguments.steps), "--dtype", arguments.dtype]
    command = [sys.executable, HERE / "sides" / f"{side}_adapters.py", *job]
    command += ["--checkpoint", checkpoint, "--setting", setting]
    # The C library keeps freed buffers, as finetune_tf lets it do for itself.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GLIBC_TUNABLES": speed.KEEPING}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=HERE / "sides"
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(arguments: argparse.Namespace) -> list[dict]:
    """Returns the medians of all sides and settings."""
    checkpoint = str(arguments.checkpoint or speed.checkpoint_of("minilm"))
    pairs = [(side, setting) for setting in arguments.settings for side in arguments.sides]
    results: dict[tuple[str, str], list[dict]] = {pair: [] for pair in pairs}
    for _ in range(arguments.rounds):
        for side, setting in pairs:
            result = run(side, setting, arguments, checkpoint)
            results[side, setting].append(result)
            print(json.dumps({"side": side, "setting": setting, **result}), flush=True)
    rows = []
    for (side, setting), found in results.items():
        row = {"side": side, "setting": setting}
        good = [result for result in found if "error" not in result]
        if good:
            row |= {key: statistics.median(result[key] for result in good) for key in KEYS}
            row |= {"lowest": min(r["seconds"] for r in good)}
            row |= {"highest": max(r["seconds"] for r in good)}
        rows.append(row if good else row | found[0])
    return rows


def table(rows: list[dict], arguments: argparse.Namespace) -> str:
    """Returns the rows as Markdown, with ratios to the side's own full step and to ours."""
    by_pair = {(row["side"], row["setting"]): row for row in rows}
    lines = [
        f"Training step of MiniLM, {arguments.batch} x {arguments.length}, rank 8, "
        f"{arguments.dtype}, median of {arguments.rounds} rounds, {os.cpu_count()} cores.",
        "",
        "| setting | side | processor ms | to its own full step | times ours | ms (lowest to "
        "highest) | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for (side, setting), row in by_pair.items():
        name = "finetune_tf" if side == "ours" else "PEFT"
        if "error" in row:
            lines.append(f"| {NAMES[setting]} | {name} | failed: {row['error'][:80]} | | | | |")
            continue
        full, ours = by_pair.get((side, "full"), {}), by_pair.get(("ours", setting), {})
        ratios = [
            f"{row['processor'] / other['processor']:.2f}" if "processor" in other else ""
            for other in (full, ours)
        ]
        lines.append(
            f"| {NAMES[setting]} | {name} | {1000 * row['processor']:.0f} | {' | '.join(ratios)} | "
            f"{1000 * row['seconds']:.0f} ({1000 * row['lowest']:.0f} to "
            f"{1000 * row['highest']:.0f}) | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the settings asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a folder of a BERT; by default MiniLM")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    rows = measured(arguments)
    text = table(rows, arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"rows": rows}, indent=2) + "\n"
    (arguments.output / "adapters.json").write_text(content, encoding="utf-8")
    (arguments.output / "adapters.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
