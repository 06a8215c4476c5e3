"""Downloads by Hub id with the real huggingface_hub, from a local server."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers_checkpoints import reference
from helpers_hub import hub

ROOT = Path(__file__).resolve().parents[2]
DEAD = "http://127.0.0.1:9"  # no server listens on this port
LOAD = """
import sys, time
import finetune_tf as ft
from finetune_tf.errors import CheckpointError

for line in sys.argv[1:]:
    name, _, revision = line.partition("@")
    start = time.monotonic()
    try:
        print(ft.load(name, revision=revision or None).labels)
    except CheckpointError as error:
        print(f"CheckpointError {error}")
    print("seconds", time.monotonic() - start)
"""


def load(*names, **environment):
    """Loads checkpoints in a separate process; returns the outcome for each."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    answers, lines = {}, []
    for line in run.stdout.splitlines():
        if line.startswith("seconds "):
            assert float(line.split()[1]) < 20
            answers[names[len(answers)]] = "\n".join(lines)
            lines = []
        else:
            lines.append(line)
    return answers


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Outcomes of three processes with a shared cache: online, offline and unreachable."""
    folder, _ = reference("relu")
    cache = str(tmp_path_factory.mktemp("cache"))
    with hub({"owner/tiny": folder, "owner/empty": tmp_path_factory.mktemp("empty")}) as server:
        names = ["owner/tiny", "owner/tiny@main", "owner/tiny@v9"]
        names += ["owner/tinny", "owner/gated", "owner/empty"]
        online = load(*names, HF_HOME=cache, HF_ENDPOINT=server.url)
        asked = list(server.asked)
    with ThreadPoolExecutor() as pool:
        two = ("owner/tiny", "owner/never")
        offline = pool.submit(load, *two, HF_HOME=cache, HF_ENDPOINT=DEAD, HF_HUB_OFFLINE="1")
        unreachable = pool.submit(load, *two, HF_HOME=cache, HF_ENDPOINT=DEAD)
    return SimpleNamespace(
        online=online, asked=asked, offline=offline.result(), unreachable=unreachable.result()
    )


@pytest.mark.slow
def test_only_needed_files_are_downloaded(runs):
    assert runs.online["owner/tiny"] == (
        "Loaded owner/tiny: 41 of 41 variables filled; the family's own pooler; saves for "
        "transformers.BertForSequenceClassification; task text-classification, by its class "
        "BertForSequenceClassification.\n"
        "Labels(['no', 'maybe', 'yes'], problem_type='single_label_classification')"
    )
    assert runs.online["owner/tiny@main"] == runs.online["owner/tiny"]
    files = [line.rpartition("/")[2] for line in runs.asked if line.startswith("GET /owner/tiny/r")]
    assert sorted(files) == ["config.json", "model.safetensors"]  # once each, and no expected.npz


@pytest.mark.slow
@pytest.mark.parametrize("way", ["offline", "unreachable"])
def test_cached_checkpoints_need_no_network(runs, way):
    assert getattr(runs, way)["owner/tiny"] == runs.online["owner/tiny"]


def test_uncached_checkpoints_without_network(runs):
    assert runs.offline["owner/never"] == (
        "CheckpointError The checkpoint 'owner/never' is neither a folder nor in the local cache, "
        "and HF_HUB_OFFLINE is set. Download it on a machine with access "
        "(`hf download owner/never --local-dir FOLDER`), copy the folder, and pass its path."
    )
    assert runs.unreachable["owner/never"].startswith(
        "CheckpointError The checkpoint 'owner/never' is neither a folder nor in the local cache, "
        "and the Hub at http://127.0.0.1:9 gave no answer (ConnectError"
    )


def test_errors_of_the_hub(runs):
    assert runs.online["owner/tinny"] == (
        "CheckpointError There is no folder and no Hub checkpoint 'owner/tinny'. Check the "
        "spelling; if it is private, log in with `hf auth login` or set HF_TOKEN."
    )
    assert runs.online["owner/gated"] == (
        "CheckpointError The checkpoint 'owner/gated' is gated: accept its terms on its Hub page, "
        "then log in with `hf auth login` or set HF_TOKEN."
    )
    assert runs.online["owner/tiny@v9"] == (
        "CheckpointError The checkpoint 'owner/tiny' has no revision 'v9'."
    )
    assert runs.online["owner/empty"] == (
        "CheckpointError The Hub's 'owner/empty' has no config.json, so it is not a Hugging Face "
        "checkpoint; found []."
    )
