"""The progress of a fit in a terminal, in a pipe and in a file."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.messages import quiet
from finetune_tf.training.progress import Progress, duration, number

TESTS = Path(__file__).parents[1]
TOKENS, ANSWERS = token_batch(16)
SCRIPT = """
    import sys
    import keras
    from helpers_models import small_model, token_batch
    import finetune_tf as ft

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            import time
            time.sleep(0.12)

    tokens, answers = token_batch(16)
    model = small_model()
    with ft.messages.quiet():
        model.compile()
        model.fit(tokens, answers, batch_size=4, epochs=2, validation_data=(tokens, answers),
                  callbacks=[Slow()])
"""


def environment(**names):
    path = f"{TESTS}:{TESTS.parent}"
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **names}


def command():
    return [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT)]


LINE = (
    r"epoch 1/2: 4 steps in 0:\d\d, accuracy 0\.\d{4}, loss \d\.\d{4}, val_accuracy 0\.\d{4}, "
    r"val_loss \d\.\d{4}, 0:\d\d left"
)


@pytest.mark.slow
def test_one_plain_line_an_epoch_in_a_pipe():
    done = subprocess.run(command(), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()
    assert re.fullmatch(LINE, first)
    assert second.startswith("epoch 2/2: 4 steps in 0:0") and "left" not in second
    assert done.stdout.replace("\n", "").isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_one_line_is_redrawn_in_a_terminal(terminal):
    master, slave = pty.openpty()
    quiet_end = subprocess.DEVNULL  # TensorFlow writes log lines to the standard error
    names = {"TERM": terminal, "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command(), env=environment(**names), stdout=slave, stderr=quiet_end)
    os.close(slave)
    output = b""
    while True:
        if not select.select([master], [], [], 60)[0]:
            break
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        output += part
    process.wait()
    os.close(master)
    text = output.decode().replace("\r\n", "\n")
    assert process.returncode == 0, text
    if terminal == "dumb":
        assert "\r" not in text and len(text.splitlines()) == 2
        return
    drawn = text.split("\r")
    bars = [line for line in drawn if "[" in line]
    assert re.match(r"epoch 1/2  \[={6} {18}\]  1/4  accuracy 0\.\d{4}  loss", bars[0])
    assert any(re.match(r"epoch 2/2  \[={18} {6}\]  3/4  0:0\d left  accuracy", b) for b in bars)
    assert all(len(line.rstrip("\n")) <= 100 for line in bars)
    lines = [re.sub(r" +$", "", line.rsplit("\r", 1)[-1]) for line in text.split("\n") if line]
    assert re.fullmatch(LINE, lines[0]) and lines[1].startswith("epoch 2/2: 4 steps")
    assert "\x1b" not in text


def fit(**options):
    model = small_model()
    with quiet():
        model.compile()
        return model.fit(TOKENS, ANSWERS, batch_size=8, **options)


@pytest.mark.slow
def test_verbose_is_that_of_keras(capsys):
    fit(verbose=0)
    assert capsys.readouterr().out == ""
    fit(verbose=2)
    assert capsys.readouterr().out.startswith("2/2 - ")
    fit()
    assert re.fullmatch(r"epoch 1/1: 2 steps in .*\n", capsys.readouterr().out)
    fit(verbose="auto", epochs=2)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_evaluations_and_predictions_write_one_line_in_a_pipe(capsys):
    model = small_model()
    with quiet():
        model.compile()
        model.evaluate(TOKENS, ANSWERS, batch_size=4)
        evaluated = capsys.readouterr().out
        model.predict(TOKENS, 4)
        predicted = capsys.readouterr().out
        model.evaluate(TOKENS, ANSWERS, verbose=1)
    assert re.fullmatch(r"4/4 - .*accuracy: 0\.\d+ - loss: \d\.\d+\n", evaluated)
    assert re.fullmatch(r"4/4 - .*\n", predicted)
    assert "\b" in capsys.readouterr().out, "a bar, since it was asked for"


@pytest.mark.slow
def test_a_given_callback_is_the_only_one(capsys):
    lines = io.StringIO()
    fit(callbacks=[Progress(lines)])
    assert lines.getvalue().count("\n") == 1 and capsys.readouterr().out == ""
    fit(callbacks=[keras.callbacks.ProgbarLogger()])
    assert "epoch 1/1" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_length_that_is_unknown(capsys):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((TOKENS, ANSWERS)).batch(4)
    data = data.filter(lambda x, y: True)
    model = small_model()
    with quiet():
        model.compile(**ft.presets.cross_entropy(schedule="constant"))
        model.fit(data, epochs=2)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/2: 4 steps in ") and first.endswith(" left")
    assert second.startswith("epoch 2/2: 4 steps in ")


def test_the_time_left_covers_all_epochs_and_validations():
    progress = Progress(io.StringIO())
    progress.set_params({"epochs": 4, "steps": 10})
    progress.on_train_begin()
    progress.on_epoch_begin(1)
    progress._step_seconds, progress._validation_seconds = 2.0, 5.0
    # Four steps and a validation of this epoch, and two epochs of 25 seconds.
    assert progress._seconds_left(steps_left=4) == 4 * 2 + 5 + 2 * 25
    assert progress._seconds_left(steps_left=0) == 2 * 25


def test_times_and_numbers():
    assert [duration(s) for s in (0.4, 61, 3600 + 62)] == ["0:00", "1:01", "1:01:02"]
    assert [number(v) for v in (0.25, 0.0, 1e-5, 12345.6)] == [
        "0.2500",
        "0.0000",
        "1e-05",
        "1.23e+04",
    ]
