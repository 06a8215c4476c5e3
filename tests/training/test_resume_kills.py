"""Processes that SIGKILL ends at random moments, and that are started again until they finish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_combined import COMBINED

TESTS = Path(__file__).resolve().parents[1]

# The process imports everything once and forks for each run, before TensorFlow starts its threads.
DRIVER = """
import hashlib, json, os, random, signal, sys, time

import keras
from helpers_combined import COMBINED
from helpers_resume import CASES, Watch

import finetune_tf as ft

CASES = CASES | COMBINED
folder, names, kills = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])


class Tell(keras.callbacks.Callback):
    '''Tells the parent of each step and each epoch.'''

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe

    def on_train_batch_begin(self, batch, logs=None):
        os.write(self.pipe, b"s")

    def on_test_batch_begin(self, batch, logs=None):
        os.write(self.pipe, b"s")

    def on_epoch_end(self, epoch, logs=None):
        os.write(self.pipe, b"s")


def child(make, place, pipe):
    keras.utils.set_random_seed(3)
    model, fit = make()
    watch = Watch()
    resume = [ft.callbacks.Resume(place, every_steps=1)] if place else []
    callbacks = [*resume, *fit.pop("callbacks", []), watch, Tell(pipe)]
    history = model.fit(**fit, callbacks=callbacks, verbose=0)
    digest = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        digest.update(variable.numpy().tobytes())
    found = [history.history, history.epoch, watch.steps, digest.hexdigest()]
    os.write(pipe, b"!" + json.dumps(found).encode())


def run(make, place, steps=None, delay=0.0):
    '''Runs a fit in a child, which is killed a moment after so many steps; returns its results.'''
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            child(make, place, write)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    told = b""
    while part := os.read(read, 1 if steps else 65536):
        told += part
        if steps and told.count(b"s") == steps and b"!" not in told:
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            steps = None
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return json.loads(told.split(b"!")[1]) if b"!" in told else None


for name in names:
    chance = random.Random(name)
    expected = run(CASES[name], None)
    place, done, found = f"{folder}/{name}", 0, None
    while found is None:
        steps = chance.randint(1, 7) if done < kills else None
        found = run(CASES[name], place, steps, chance.uniform(0, 0.03))
        done += found is None
    leftovers = [n for n in os.listdir(f"{place}/fit-1") if not n.startswith("epoch")]
    assert found == expected, (name, found, expected)
    print(name, "killed", done, leftovers, flush=True)
"""
CASES = [
    "plain", "shuffled arrays", "accumulation", "averages", "loss scale", "early stopping",
    "best weights", "plateau", "unfreezing", "random callback", "three steps at once", *COMBINED,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("name", CASES)
def test_killed_at_random_moments(name, tmp_path):
    """Five kills of each case, 75 in all; saves are written at each step, so some are hit."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(tmp_path), name, "5"],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{name} killed" in done.stdout
