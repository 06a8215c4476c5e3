"""`finetune(resume=…)` and `finetune-tf train --resume` continue a run that was stopped."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers_models import write_checkpoint
from helpers_resume import Broken

import finetune_tf as ft
from finetune_tf.base.interruption import StopWhenAsked
from finetune_tf.errors import ModelError, TrainingInterrupted

GOOD = ["a very good film", "the actor was great", "a fine story", "good and great"]
BAD = ["a very bad film", "the actor was poor", "a dull story", "bad and poor"]
TEXTS = [f"{text} {i}" for texts in (GOOD, BAD) for i in range(6) for text in texts]
LABELS = ["good"] * 24 + ["bad"] * 24
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "one-block"
    return write_checkpoint(folder, blocks=1, hidden_dropout_prob=0.2)


@pytest.fixture
def reviews():
    return ft.data.from_arrays(TEXTS, LABELS, name="toy")


@pytest.fixture
def stop_at(monkeypatch):
    """Calls a function after so many steps of `finetune`."""

    def set_stop(steps, act):
        original, seen = StopWhenAsked.on_train_batch_end, []

        def counted(self, batch, logs=None):
            seen.append(batch)
            original(self, batch, logs)
            if len(seen) == steps:
                act()

        monkeypatch.setattr(StopWhenAsked, "on_train_batch_end", counted)

    return set_stop


def end_process():
    raise Broken


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def run(checkpoint, reviews, **options):
    with ft.messages.quiet():
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "verbose": 0, **options}
        return ft.finetune(checkpoint, reviews, reviews[::4], **settings)


def require_same(one, other):
    assert one.history == other.history
    assert len(one.model.weights) == len(other.model.weights)
    for left, right in zip(one.model.weights, other.model.weights, strict=True):
        assert left.numpy().tobytes() == right.numpy().tobytes()


@pytest.mark.jax
def test_a_broken_run_ends_like_a_whole_one(one_block, reviews, tmp_path, stop_at, capsys):
    """With cached features, and with the weights of the best epoch."""
    options = {"policy": "head"}
    expected = run(one_block, reviews, **options)
    stop_at(8, end_process)
    with pytest.raises(Broken):
        run(one_block, reviews, **options, resume=tmp_path / "saves")
    resumed = run(one_block, reviews, **options, resume=tmp_path / "saves")
    require_same(resumed, expected)
    capsys.readouterr()
    finished = ft.finetune(
        one_block, reviews, reviews[::4], epochs=2, batch_size=8, learning_rate=1e-3, verbose=0,
        **options, resume=tmp_path / "saves",
    )  # fmt: skip
    require_same(finished, expected)
    folder = tmp_path / "saves" / "phase-1" / "fit-1"
    told = f"The run in {folder} is finished after epoch 2; nothing is trained.\n"
    assert told in capsys.readouterr().out

    with pytest.raises(ModelError) as caught:
        run(one_block, reviews, **options, seed=1, resume=tmp_path / "saves")
    assert str(caught.value) == (
        f"The run in {tmp_path}/saves cannot be continued: seed was 0 and is 1 now. Use the same "
        "settings as before to continue it, or another folder to start anew."
    )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 8, 15])
def test_all_phases(steps, one_block, reviews, tmp_path, stop_at):
    """The head has 6 steps; the steps of everything follow."""
    options = {"policy": "head-first", "keep": "best"}
    expected = run(one_block, reviews, **options)
    stop_at(steps, end_process)
    with pytest.raises(Broken):
        run(one_block, reviews, **options, resume=tmp_path / "saves")
    require_same(run(one_block, reviews, **options, resume=tmp_path / "saves"), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_after_ctrl_c_the_same_call_continues(one_block, reviews, tmp_path, stop_at):
    options = {"policy": "head"}
    expected = run(one_block, reviews, **options)
    stop_at(8, press_ctrl_c)
    with pytest.raises(TrainingInterrupted) as caught:
        run(one_block, reviews, **options, resume=tmp_path)
    assert str(caught.value) == (
        "Training was interrupted in epoch 2, step 2; the model has the weights of epoch 1, the "
        f"best one so far. Make the same call again to continue; the saves are in {tmp_path}."
    )
    saves = {path.name for path in (tmp_path / "phase-1" / "fit-1").iterdir()}
    assert saves == {"epoch-0001-step-000000.safetensors", "epoch-0001-step-000002.safetensors"}
    require_same(run(one_block, reviews, **options, resume=tmp_path), expected)


@pytest.mark.slow
def test_the_command_continues_after_sigkill(one_block, tmp_path):
    table = tmp_path / "train.csv"
    rows = [f"{text},{label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    table.write_text("\n".join(["text,label", *rows]))

    def command(output):
        options = ["--epochs", "8", "--batch-size", "4", "--verbose", "2", "--resume"]
        arguments = ["train", str(one_block), str(table), "--output", str(tmp_path / output)]
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "finetune_tf", *arguments, *options],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    whole = command("whole")
    whole.communicate()
    assert whole.returncode == 0
    killed = command("killed")
    for line in killed.stdout:
        if "Epoch 4/" in line:  # the first saves are written by then
            killed.kill()
    killed.communicate()
    assert (tmp_path / "killed.resume").exists() and not (tmp_path / "killed").exists()
    again = command("killed")
    printed = again.communicate()[0]
    assert again.returncode == 0
    # The process may have begun another epoch before the signal came.
    place = re.escape(f"{tmp_path}/killed.resume/phase-1/fit-1")
    assert re.search(rf"The run in {place} (continues in epoch [2-8]|is finished)", printed)
    histories = [
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "killed")
    ]
    assert histories[0] == histories[1]
    weights = [
        np.fromfile(tmp_path / name / "checkpoint" / "model.safetensors", "uint8")
        for name in ("whole", "killed")
    ]
    np.testing.assert_array_equal(*weights)
    assert not (tmp_path / "killed.resume").exists()
    finished = command("killed")
    printed = finished.communicate()[0]
    assert printed.splitlines()[-1] == (
        f"The run in {tmp_path}/killed is finished; nothing is trained."
    )
