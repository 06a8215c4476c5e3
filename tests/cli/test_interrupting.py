"""Ctrl-C and SIGTERM in real processes, and in calls from Python."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import pytest
from helpers_models import write_checkpoint

import finetune_tf as ft
from finetune_tf.base.interruption import finishing_steps, interrupt

ROWS = ["a very good film,good", "the actor was great,good", "a very bad film,bad", "poor,bad"] * 8


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one-block", blocks=1)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["text,label", *ROWS]))
    return path


@pytest.fixture
def reviews():
    return ft.data.from_arrays(
        [row.split(",")[0] for row in ROWS], [row.split(",")[1] for row in ROWS]
    )


def started(*command):
    """Starts a process in which Ctrl-C works, even if this process ignores it."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def read_until(stream, wanted):
    for line in stream:
        if wanted in line:
            return line
    raise AssertionError(f"{wanted!r} never came")


@pytest.mark.slow
@pytest.mark.parametrize(
    "signum, code",
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_after_a_signal_the_step_finishes_and_the_best_weights_are_saved(
    one_block, table, tmp_path, signum, code
):
    folder = tmp_path / "run"
    options = ["--output", folder, "--epochs", 100_000, "--batch-size", 8, "--verbose", 2]
    process = started("-m", "finetune_tf", "train", one_block, table, *options)
    read_until(process.stdout, "Epoch 3/")
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert "Traceback" not in errors
    assert "Stopping once results are saved; press Ctrl-C again to stop at once." in errors
    last = errors.splitlines()[-1]
    assert last.startswith("finetune-tf: Training was interrupted in epoch ")
    assert "the best one so far." in last
    assert last.endswith(
        f"{folder} contains checkpoint, history.json, history.png, settings.json; there is no "
        "report."
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert ft.predict(ft.load(folder / "checkpoint"), "a very good film").label in ("good", "bad")
    history = json.loads((folder / "history.json").read_text())
    assert len(history["val_accuracy"]) >= 2
    assert "interrupted" in json.loads((folder / "settings.json").read_text())


@pytest.mark.slow
def test_a_signal_before_the_first_step_writes_nothing(one_block, table, tmp_path):
    code = textwrap.dedent(
        f"""
        import os, signal, sys
        from finetune_tf import cli
        from finetune_tf.cli import commands
        commands.ft.finetune = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)
        sys.argv = ["finetune-tf", "train", {str(one_block)!r}, {str(table)!r}, "--output",
                    {str(tmp_path / "run")!r}]
        cli.main()
        """
    )
    process = started("-c", code)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert errors.splitlines()[-1] == "finetune-tf: Interrupted; nothing was written."
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once():
    code = textwrap.dedent(
        """
        import signal
        from finetune_tf.base.interruption import finishing_steps, interrupt
        signal.signal(signal.SIGINT, interrupt)
        with finishing_steps():
            print("ready", flush=True)
            while True:
                pass
        """
    )
    process = started("-c", code)
    read_until(process.stdout, "ready")
    process.send_signal(signal.SIGINT)
    read_until(process.stderr, "Stopping once results")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert process.returncode == -signal.SIGINT


class Interrupts(keras.callbacks.Callback):
    """Sends Ctrl-C during a step, and records the weights at the end of each epoch."""

    def __init__(self, epoch, step):
        super().__init__()
        self.when, self.epoch, self.biases, self.steps = (epoch, step), 0, [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch + 1) == self.when:
            signal.raise_signal(signal.SIGINT)

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = 1.0 if epoch == 0 else 0.5
        self.biases.append(bias_of(self.model))


def bias_of(model):
    return model.get_layer("classifier").dense.bias.numpy().tolist()


@pytest.fixture
def ctrl_c():
    """Installs Python's default handler for Ctrl-C, even if the tests run with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
def test_the_interruption_has_the_best_weights(one_block, reviews, ctrl_c, tmp_path):
    user = Interrupts(epoch=3, step=2)
    with pytest.raises(ft.errors.TrainingInterrupted) as stopped:
        ft.finetune(
            one_block, reviews, reviews, reviews, epochs=5, batch_size=8, learning_rate=1e-2,
            callbacks=(user,),
        )  # fmt: skip

    result = stopped.value.result
    assert str(stopped.value) == (
        "Training was interrupted in epoch 3, step 2; the model has the weights of epoch 1, the "
        "best one so far."
    )
    assert user.steps == 2 * 4 + 2  # the step in which it came is finished
    assert bias_of(result.model) == user.biases[0] != user.biases[1]
    assert len(result.history["loss"]) == 2 and result.report is None
    saved = result.save(tmp_path / "run")
    assert bias_of(ft.load(saved / "checkpoint")) == user.biases[0]
    # The model can be trained further: the interrupted fit leaves no state behind.
    result.model.fit(
        reviews.batches(result.model, 8), validation_data=reviews.batches(result.model)
    )


@pytest.mark.slow
def test_weights_of_the_last_step_if_no_epoch_is_finished(one_block, reviews, ctrl_c):
    with pytest.raises(ft.errors.TrainingInterrupted, match="in epoch 1, step 3; .* last step"):
        ft.finetune(one_block, reviews, reviews, batch_size=8, callbacks=(Interrupts(1, 3),))


@pytest.mark.slow
def test_an_interruption_reports_the_phase(one_block, reviews, ctrl_c):
    class InSecond(Interrupts):
        phase = 0

        def on_train_begin(self, logs=None):
            self.phase += 1
            self.when = (1, 2) if self.phase == 2 else None

    with pytest.raises(ft.errors.TrainingInterrupted, match="in phase 2, epoch 1, step 2") as stop:
        ft.finetune(
            one_block, reviews, reviews, policy="head-first", batch_size=8,
            callbacks=(InSecond(1, 2),),
        )  # fmt: skip
    assert len(stop.value.result.history["loss"]) == 1  # of the first phase


def test_the_first_signal_is_a_request_and_the_second_interrupts(ctrl_c):
    with finishing_steps() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_custom_handler_is_not_replaced(ctrl_c):
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    with finishing_steps() as request:
        signal.raise_signal(signal.SIGINT)
    assert seen == [True] and request.signum is None


def test_the_handler_of_the_command_line_passes_the_signal_number():
    with pytest.raises(KeyboardInterrupt) as stopped:
        interrupt(signal.SIGTERM, None)
    assert stopped.value.args == (signal.SIGTERM,)


@pytest.mark.slow
def test_an_interruption_with_cached_features(one_block, reviews, ctrl_c, monkeypatch):
    """Trains only the head, in a separate model; the complete model gets its best weights."""
    record = keras.callbacks.History.on_epoch_end

    def press(history, *arguments):  # a callback of one's own would prevent the feature cache
        record(history, *arguments)
        if len(history.epoch) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(keras.callbacks.History, "on_epoch_end", press)
    with pytest.raises(ft.errors.TrainingInterrupted) as stopped:
        ft.finetune(one_block, reviews, reviews, policy="head", epochs=10**6, verbose=0)

    result = stopped.value.result
    scores = result.history["val_accuracy"]
    assert f"epoch {1 + scores.index(max(scores))}, the best one so far" in str(stopped.value)
    assert ft.evaluate(result.model, reviews).metrics["accuracy"] == pytest.approx(max(scores))
