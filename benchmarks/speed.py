"""How fast finetune_tf is beside its peers: the same work, in turn, in one run.

    python benchmarks/speed.py --data ../shared/data [step-minilm-128 epoch frozen-3 …]

Each side runs in a process and an environment of its own; the environments of peers are made in
.bench/ when they are first needed (some gigabytes). Rounds are interleaved, so that a busy moment
of the machine meets all sides. Writes benchmarks/results/speed.json and speed.md.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".bench"
PACKAGES = {
    "pytorch": ["torch==2.13.0", "transformers>=5.20", "numpy"],
    "kerashub": ["tensorflow>=2.21", "keras>=3.15", "transformers>=5.20"],
    "transformers4": ["tensorflow==2.21.*", "tf-keras==2.21.*", "transformers==4.57.6"],
}
WITHOUT_DEPENDENCIES = {"kerashub": ["keras-hub==0.32.0", "kagglehub", "rich"]}


@dataclass(frozen=True)
class Workload:
    """A job, and who does it in which settings."""

    what: str
    job: tuple[str, ...]
    peers: tuple[tuple[str, str], ...]  # side and setting


# "kept" has the C library keep freed buffers, as finetune_tf does for itself: peers at their best.
EAGER, KEPT, COMPILED = ("pytorch", "eager"), ("pytorch", "eager+kept"), ("pytorch", "compile+kept")
GROUPED = ("pytorch", "eager+grouped+kept")
HUB, HUB_SHORT, HUB_KEPT = ("kerashub", "default"), ("kerashub", "short+kept"), ("kerashub", "kept")
OLD = ("transformers4", "kept")
SERVED, SPARING = ("ours", "openvino"), ("ours", "checkpointing")
PACKED = ("ours", "packed")
STEP = (EAGER, KEPT, COMPILED, HUB_KEPT, OLD)
KEEPING = ":".join(
    f"glibc.malloc.{name}={bytes}"
    for name, bytes in (
        ("mmap_threshold", 1 << 30),
        ("trim_threshold", 1 << 30),
        ("top_pad", 1 << 27),
    )
)
WORKLOADS = {
    "step-minilm-128": Workload(
        "training step, MiniLM size, 16 × 128",
        ("step", "--batch", "16", "--length", "128"),
        STEP,
    ),
    "step-minilm-24": Workload(
        "training step, MiniLM size, 32 × 24", ("step", "--batch", "32", "--length", "24"), STEP
    ),
    "step-base-128": Workload(
        "training step, BERT base, 16 × 128",
        ("step", "--size", "base", "--batch", "16", "--length", "128", "--steps", "5"),
        STEP,
    ),
    "epoch": Workload(
        "an epoch of SST-2 (6,920 sentences), MiniLM",
        ("epochs",),
        (PACKED, EAGER, GROUPED, HUB_SHORT, OLD),
    ),
    "epochs-3": Workload(
        "3 epochs of SST-2, MiniLM; the later ones have compiled all shapes",
        ("epochs", "--epochs", "3"),
        (PACKED, GROUPED),
    ),
    "epoch-phrases": Workload(
        "an epoch of 20,000 SST-2 phrases, MiniLM",
        ("epochs", "--corpus", "sst2_phrases", "--rows", "20000"),
        (PACKED, GROUPED, HUB_SHORT),
    ),
    "epoch-padded": Workload(
        "an epoch of 640 sentences, the peer as its guides set it up",
        ("epochs", "--rows", "640"),
        (HUB,),
    ),
    "frozen-3": Workload(
        "3 epochs of SST-2, backbone frozen",
        ("epochs", "--frozen", "backbone", "--epochs", "3"),
        (EAGER, GROUPED),
    ),
    "frozen-10": Workload(
        "10 epochs of SST-2, backbone frozen",
        ("epochs", "--frozen", "backbone", "--epochs", "10"),
        (EAGER, GROUPED),
    ),
    "half-3": Workload(
        "3 epochs of SST-2, embeddings and lower half frozen",
        ("epochs", "--frozen", "half", "--epochs", "3"),
        (PACKED, EAGER, GROUPED),
    ),
    "predict": Workload(
        "prediction of 5,000 sentences",
        ("predict", "--rows", "5000"),
        (SERVED, EAGER, KEPT, HUB_SHORT),
    ),
    "first": Workload(
        "process start to the end of the first step",
        ("first", "--batch", "32", "--length", "24"),
        (EAGER, HUB, OLD),
    ),
    "first-base": Workload(
        "process start to the end of the first step, BERT base, 16 × 128",
        ("first", "--size", "base", "--batch", "16", "--length", "128"),
        (EAGER, HUB, OLD),
    ),
    "memory": Workload(
        "training step, MiniLM size, 64 × 128",
        ("step", "--batch", "64", "--length", "128", "--steps", "3"),
        (SPARING, EAGER),
    ),
}


def python_of(side: str) -> Path:
    """The interpreter of a side's environment, which is made if it is not there."""
    if side == "ours":
        return Path(sys.executable)
    folder = ENVIRONMENTS / side
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        subprocess.run([*pip, *PACKAGES[side]], check=True)
        if side in WITHOUT_DEPENDENCIES:
            subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES[side]], check=True)
        (folder / ".installed").touch()
    return python


def run(side: str, setting: str, job: list[str]) -> dict:
    """One job of one side; what it printed, or the error it died of."""
    command = [python_of(side), HERE / "sides" / f"{side}.py", *job, "--setting", setting]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    if "kept" in setting.split("+"):
        environment["GLIBC_TUNABLES"] = KEEPING
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=HERE / "sides"
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:] or ["died without a word"]}
    return json.loads(done.stdout.strip().splitlines()[-1])


@functools.cache
def checkpoint_of(size: str) -> str:
    """A folder with weights for the sides that read one: MiniLM, or random ones of a size."""
    if size == "minilm":
        from finetune_tf.demo import minilm

        return str(minilm())
    folder = ENVIRONMENTS / f"random-{size}"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = run("ours", "default", ["checkpoint", "--size", size, "--checkpoint", str(folder)])
        if "error" in made:
            raise RuntimeError(made["error"][0])
    return str(folder)


def measured(name: str, arguments: argparse.Namespace) -> list[dict]:
    """All sides of a workload, `rounds` times in turn."""
    workload = WORKLOADS[name]
    job = [*workload.job, "--dtype", arguments.dtype]
    if workload.job[0] in ("epochs", "predict"):
        job += ["--data", str(arguments.data.resolve())]
        if arguments.rows and "--rows" not in job:
            job += ["--rows", str(arguments.rows)]
    job += ["--checkpoint", checkpoint_of("base" if "base" in job else "minilm")]
    sides = [("ours", "default"), *workload.peers]
    sides = [side for side in sides if side[0] in arguments.sides]
    runs: dict[tuple[str, str], list[dict]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, setting in sides:
            result = run(side, setting, job)
            runs[side, setting].append(result)
            print(json.dumps({"workload": name, "side": side, "setting": setting} | _short(result)))
            sys.stdout.flush()
    return [_summary(name, *side, results) for side, results in runs.items()]


def _short(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "all"}


def _summary(name: str, side: str, setting: str, results: list[dict]) -> dict:
    row = {"workload": name, "side": side, "setting": setting}
    good = [result for result in results if "error" not in result]
    if not good:
        return row | results[0]
    seconds = [result["seconds"] for result in good]
    row |= {
        "seconds": statistics.median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
        "peak_mb": statistics.median(result["peak_mb"] for result in good),
        "own_mb": statistics.median(r["peak_mb"] - r["imported_mb"] for r in good),
    }
    accuracies = [result["accuracy"] for result in good if "accuracy" in result]
    return row | ({"accuracy": statistics.median(accuracies)} if accuracies else {})


def table(rows: list[dict], machine: dict) -> str:
    """Markdown: seconds, spread, how many times ours, memory."""
    told = ", ".join(f"{key} {value}" for key, value in machine.items())
    lines = [
        f"Measured by benchmarks/speed.py: {told}.",
        "",
        "| work | side | seconds (lowest to highest) | times ours | peak MB (without imports) "
        "| accuracy |",
        "|---|---|---|---|---|---|",
    ]
    own = {
        row["workload"]: row.get("seconds")
        for row in rows
        if (row["side"], row["setting"]) == ("ours", "default")
    }
    for row in rows:
        side = "finetune_tf" if row["side"] == "ours" else row["side"]
        side += "" if row["setting"] == "default" else f" {row['setting']}"
        what = WORKLOADS[row["workload"]].what
        if "error" in row:
            lines.append(f"| {what} | {side} | failed: {row['error'][0][:80]} | | | |")
            continue
        ratio = row["seconds"] / own[row["workload"]] if own.get(row["workload"]) else None
        accuracy = f"{row['accuracy']:.3f}" if "accuracy" in row else ""
        lines.append(
            f"| {what} | {side} | {row['seconds']:.3g} ({row['lowest']:.3g} to "
            f"{row['highest']:.3g}) | {'' if ratio is None else f'{ratio:.2f}'} | "
            f"{row['peak_mb']:.0f} ({row['own_mb']:.0f}) | {accuracy} |"
        )
    return "\n".join(lines) + "\n"


def machine_of(arguments: argparse.Namespace) -> dict:
    """What the figures depend on."""
    from importlib.metadata import version

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        words = file.read()
    model = next((li.split(":")[1].strip() for li in words.splitlines() if "model name" in li), "?")
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if unit in words]
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "vector units": units[0] if units else "?",
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "Python": platform.python_version(),
        "TensorFlow": version("tensorflow"),
        "Keras": version("keras"),
        "transformers": version("transformers"),
        "PyTorch": "2.13.0",
        "KerasHub": "0.32.0",
    }


def main() -> None:
    """Runs the workloads asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(WORKLOADS), help="which workloads")
    parser.add_argument("--data", type=Path, help="folder with sst2/ and sst2_phrases/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="only so many sentences an epoch")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--sides", nargs="+", default=["ours", *PACKAGES])
    parser.add_argument("--output", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    rows = [row for name in arguments.names for row in measured(name, arguments)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = machine_of(arguments)
    content = json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n"
    (arguments.output / "speed.json").write_text(content, encoding="utf-8")
    text = table(rows, machine)
    (arguments.output / "speed.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
