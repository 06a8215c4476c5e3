"""The saves of a fit: what they contain, and what happens when something is wrong with them."""

import os
import re
import signal
import subprocess
import threading

import keras
import numpy as np
import pytest
from helpers_models import small_model, token_batch
from helpers_resume import Broken, Watch, broken_and_resumed, outcome

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.callbacks import Resume
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError
from finetune_tf.training.resuming import callback as resuming
from finetune_tf.training.resuming.files import NotFiniteError, Stored
from finetune_tf.training.resuming.saves import Saves, read

TOKENS, ANSWERS = token_batch(20)
pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")


def make(epochs=2, rate=1e-2, answers=ANSWERS, prepare=None, **fit):
    model = small_model()
    with ft.messages.quiet():
        if prepare is not None:
            prepare(model)
        model.compile(**ft.presets.cross_entropy(learning_rate=rate))
    data = {"x": TOKENS, "y": answers, "batch_size": 4, "epochs": epochs, "shuffle": False}
    return model, data | {"validation_data": (TOKENS[:8], ANSWERS[:8])} | fit


def stored(array, must_be_finite=False):
    return Stored(array.shape, array.dtype.name, lambda: array, must_be_finite)


class TestOneFile:
    """Reading and writing alone."""

    arrays = {
        "a": np.arange(6, dtype="float32").reshape(2, 3),
        "b": np.array(7, dtype="int64"),
        "c": np.zeros((0, 2), "bool"),
    }

    def write(self, saves, place=(1, 0), **state):
        return saves.write(place, state, {n: stored(a) for n, a in self.arrays.items()})

    def test_safetensors_reads_it_too(self, tmp_path):
        from safetensors.numpy import load_file

        path = self.write(Saves(tmp_path, 2), best=None, epoch=1)
        state, arrays = read(path)
        assert path.name == "epoch-0001-step-000000.safetensors"
        assert state == {"best": None, "epoch": 1}
        for found in (arrays, load_file(path)):
            assert found.keys() == self.arrays.keys()
            for name, array in self.arrays.items():
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name], array)

    def test_every_changed_byte_is_noticed(self, tmp_path):
        path = self.write(Saves(tmp_path, 2))
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match="is damaged|cannot be read"):
                read(path)
        for end in (0, 3, 50, len(whole) - 1):
            path.write_bytes(whole[:end])
            with pytest.raises(CheckpointError, match="is damaged|cannot be read"):
                read(path)

    def test_the_newest_are_kept_and_the_best(self, tmp_path):
        saves = Saves(tmp_path, 2)
        for place in [(0, 4), (1, 0), (1, 5), (2, 0), (10_000, 1)]:
            best = {"file": "epoch-0001-step-000000.safetensors"}
            self.write(saves, place, best=best)
        assert [path.name for path in saves.paths()] == [
            "epoch-10000-step-000001.safetensors",
            "epoch-0002-step-000000.safetensors",
            "epoch-0001-step-000000.safetensors",
        ]

    def test_a_damaged_file_is_put_aside(self, tmp_path, capsys):
        saves = Saves(tmp_path, 2)
        first, second = self.write(saves, (1, 0), n=1), self.write(saves, (2, 0), n=2)
        second.write_bytes(second.read_bytes()[:-4])
        path, state, _ = saves.newest()
        assert (path, state) == (first, {"n": 1})
        assert capsys.readouterr().out == (
            f"{second} is damaged: its checksum is not that of its content. It is now called "
            "epoch-0002-step-000000.safetensors.damaged, and the save before it is used.\n"
        )

    def test_a_weight_that_is_not_finite_is_not_saved(self, tmp_path):
        saves = Saves(tmp_path, 2)
        self.write(saves)
        for value in (np.nan, np.inf):
            with pytest.raises(NotFiniteError):
                saves.write((2, 0), {}, {"a": stored(np.array([1.0, value]), True)})
        assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001-step-000000.safetensors"]

    def test_what_a_killed_process_left_is_removed(self, tmp_path):
        (tmp_path / ".epoch-0001-step-000000.safetensors-0123abcd.unfinished").write_bytes(b"12")
        (tmp_path / "notes.txt").write_text("mine")
        assert Saves(tmp_path, 2).newest() is None
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_state_is_that_of_the_step_even_if_it_is_written_later(tmp_path, monkeypatch):
    """The thread waits until the fit is over."""
    over, write = threading.Event(), Saves.write
    monkeypatch.setattr(Saves, "write", lambda *args: over.wait(60) and write(*args))
    model, fit = make(epochs=1)
    weights = {}

    class Note(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                weights.update({i: v.numpy() for i, v in enumerate(model.variables)})

        def on_test_begin(self, logs=None):
            over.set()

    model.fit(**fit, callbacks=[Note(), Resume(tmp_path, every_steps=3)], verbose=0)
    state, arrays = read(tmp_path / "fit-1" / "epoch-0000-step-000003.safetensors")
    assert (state["epoch"], state["step"]) == (0, 3)
    changed = 0
    for i, array in weights.items():
        np.testing.assert_array_equal(arrays[f"model/{i}"], array)
        changed += not np.array_equal(model.variables[i].numpy(), array)
    assert changed > 5


@pytest.mark.slow
def test_a_damaged_save_falls_back_to_the_one_before(tmp_path, capsys):
    expected = outcome(make)
    with pytest.raises(Broken):
        outcome(make, tmp_path, (1, 3))
    newest = tmp_path / "fit-1" / "epoch-0001-step-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    outcome(make, tmp_path).require_same(expected)
    printed = capsys.readouterr().out
    assert f"{newest} cannot be read: it is not a complete save. It is now called" in printed
    assert f"The run in {tmp_path}/fit-1 continues in epoch 2 of 2 epochs.\n" in printed


@pytest.mark.slow
def test_on_a_full_disk_training_continues(tmp_path, capsys):
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"mount cannot be run: {error}")
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:

        class Fill(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 3:
                    room = os.statvfs(tmp_path)
                    (tmp_path / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize))

        def filling():
            return make(epochs=1, callbacks=[Fill()])

        outcome(filling, tmp_path).require_same(outcome(lambda: make(epochs=1)))
        saves = tmp_path / "fit-1"
        assert [path.name for path in saves.iterdir()] == ["epoch-0000-step-000002.safetensors"]
        assert (
            f"{saves}/epoch-0001-step-000000.safetensors cannot be written (No space left on "
            "device). Existing files are unchanged. Training continues. The last save is "
            f"{saves}/epoch-0000-step-000002.safetensors; "
            f"ft.callbacks.Resume({str(tmp_path)!r}).load_weights(model) loads its weights.\n"
        ) in capsys.readouterr().out
        (tmp_path / "filler").unlink()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a broken run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(Broken):
        outcome(lambda: make(callbacks=[stopping(3)]), folder, (1, 0))
    return folder


class TestChanges:
    """A run goes on with the same settings only."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"epochs": 5},
                "epochs was 2 and is 5 now. With another number of epochs, the learning rates of "
                "all steps would be others. Finish this run, and train its final weights in "
                "another folder: ft.callbacks.Resume(folder).load_weights(model).",
            ),
            ({"rate": 2e-2}, "optimizer: learning_rate: config: peak was 0.01 and is 0.02 now. "),
            ({"answers": ANSWERS[::-1].copy()}, "data: content was "),
            ({"batch_size": 5}, "data: batches in an epoch was 5 and is 4 now. The rows, their"),
            (
                {"class_weight": {0: 2.0}},
                "class_weight was None and is [2.0, 1.0] now. Use the same",
            ),
            ({"patience": 4}, "callbacks: 0: 1: patience was 3 and is 4 now. Use the same"),
        ],
    )
    def test_a_change_is_named(self, changed, message, folder):
        changed = dict(changed)
        patience = changed.pop("patience", 3)
        with pytest.raises(ModelError) as caught:
            outcome(lambda: make(**changed, callbacks=[stopping(patience)]), folder)
        start = f"The run in {folder}/fit-1 cannot be continued: "
        assert str(caught.value).startswith(start + message)

    @pytest.mark.slow
    def test_other_frozen_weights_are_named(self, tmp_path):
        def freeze(model):
            table = model.get_layer("embeddings")
            table.embeddings.assign(table.embeddings * self.factor)
            ft.freeze(model, select.embeddings())

        from finetune_tf.training.resuming import state

        before, state._SMALL = state._SMALL, 16
        try:
            self.factor = 1.0
            with pytest.raises(Broken):
                outcome(lambda: make(prepare=freeze), tmp_path, (1, 3))
            self.factor = 2.0
            with pytest.raises(ModelError) as caught:
                outcome(lambda: make(prepare=freeze), tmp_path)
        finally:
            state._SMALL = before
        assert "the frozen variable embeddings/embeddings has other values" in str(caught.value)

    def test_other_layers_are_named(self, folder):
        def with_relu():
            model, fit = make(callbacks=[stopping(3)])
            model.get_layer("block_0").activation = keras.activations.relu
            return model, fit

        with pytest.raises(ModelError, match="layers: .*: activation was 'tanh' and is 'relu' now"):
            outcome(with_relu, folder)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("objectives", "objectives: 0: alpha was 1.0 and is 2.0 now. Use the same"),
            ("teacher", "objectives: 0: teacher was "),
            ("EMA", "callbacks: 0: 1: decay was 0.5 and is 0.9 now. Use the same"),
            ("monitor", "callbacks: 0: 1: monitor was 'val_loss' and is 'loss' now. Use the same"),
            pytest.param(
                "Unfreeze", "callbacks: 0: 1: every was 1 and is 2 now.", marks=pytest.mark.slow
            ),
        ],
    )
    def test_objectives_and_callbacks(self, option, message, tmp_path):
        def made(second):
            objective = ft.objectives.NEFTune(alpha=2.0 if second else 1.0)
            callbacks = {
                "EMA": [ft.callbacks.EMA(0.9 if second else 0.5)],
                "monitor": [keras.callbacks.EarlyStopping("loss" if second else "val_loss")],
                "Unfreeze": [ft.callbacks.Unfreeze(every=2 if second else 1)],
            }.get(option, [])
            model, fit = make(callbacks=callbacks)
            if option == "teacher":
                teacher = small_model()
                if second:
                    teacher.set_weights([weight + 1 for weight in teacher.get_weights()])
                objective = ft.objectives.Distillation(teacher)
            if option in ("objectives", "teacher"):
                with ft.messages.quiet():
                    model.compile(**ft.presets.cross_entropy(), objectives=[objective])
            return model, fit

        with pytest.raises(Broken):
            outcome(lambda: made(False), tmp_path, (1, 0))
        with pytest.raises(ModelError, match=f"cannot be continued: {re.escape(message)}"):
            outcome(lambda: made(True), tmp_path)


def stopping(patience):
    return keras.callbacks.EarlyStopping("val_loss", patience=patience)


class TestFrozenVariables:
    @pytest.mark.slow
    def test_they_are_left_out(self, tmp_path, monkeypatch):
        """Also out of the best weights that EarlyStopping keeps."""
        from finetune_tf.training.resuming import state

        monkeypatch.setattr(state, "_SMALL", 16)

        def head():
            best = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
            return make(prepare=lambda model: ft.train_only(model, select.head()), callbacks=[best])

        expected = outcome(head)
        broken_and_resumed(head, tmp_path, (1, 3)).require_same(expected)
        saved, arrays = read(tmp_path / "fit-1" / "epoch-0002-step-000000.safetensors")
        model, _ = head()
        frozen = [i for i, v in enumerate(model.variables) if "classifier" not in v.path]
        large = [f"model/{i}" for i in frozen if np.prod(model.variables[i].shape) > 4]
        assert large and not set(large) & set(arrays)
        assert len([n for n in saved["left_out"] if n.startswith("values")]) == len(large)


def test_callbacks_that_cannot_continue_are_refused(tmp_path):
    model, fit = make(epochs=1)
    refused = {
        "BackupAndRestore and Resume both continue a fit": keras.callbacks.BackupAndRestore(
            str(tmp_path / "backup")
        ),
        "CSVLogger empties its file whenever a fit begins": keras.callbacks.CSVLogger(
            str(tmp_path / "log.csv")
        ),
        "A fit has one Resume, found several.": Resume(tmp_path / "other"),
    }
    for message, callback in refused.items():
        with pytest.raises(ModelError, match=f"^{message}"):
            model.fit(**fit, callbacks=[Resume(tmp_path / "run"), callback], verbose=0)


@pytest.mark.slow
def test_what_is_not_saved_is_named(tmp_path, capsys):
    class Holder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.counter = threading.Event()

    model, fit = make(epochs=1)
    model.fit(**fit, callbacks=[Holder(), Resume(tmp_path)], verbose=0)
    assert (
        "Resume does not save Holder.counter (a Event). If the fit changes it, give Holder the "
        "methods state_dict and load_state_dict.\n"
    ) in capsys.readouterr().out


def test_arguments():
    for options in ({"every_steps": 0}, {"keep": 0}, {"keep": 1.5}):
        with pytest.raises(ArgumentError, match=f"^{next(iter(options))} must be an integer >= 1"):
            Resume("folder", **options)


class TestDivergence:
    @pytest.mark.slow
    def test_the_last_good_weights_are_named_and_load(self, tmp_path, capsys):
        model, fit = make(epochs=3)

        class Ruin(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 3:
                    kernel = self.model.get_layer("block_1").kernel
                    kernel.assign(kernel * np.nan)

        callbacks = [Ruin(), Resume(tmp_path, every_steps=1)]
        with pytest.raises(ModelError) as caught:
            model.fit(**fit, callbacks=callbacks, verbose=0)
        good = tmp_path / "fit-1" / "epoch-0000-step-000003.safetensors"
        assert str(caught.value).endswith(
            f"The last save is {good}; ft.callbacks.Resume({str(tmp_path)!r}).load_weights(model) "
            "loads its weights."
        )
        assert "The weights are NaN or infinite and are not saved." in capsys.readouterr().out
        other, _ = make()
        assert Resume(tmp_path).load_weights(other) == good
        for i, variable in enumerate(other.variables):
            np.testing.assert_array_equal(variable.numpy(), read(good)[1][f"model/{i}"])

    @pytest.mark.slow
    def test_the_best_weights(self, tmp_path):
        losses = outcome(lambda: make(epochs=4), tmp_path, keep=1).history["val_accuracy"]
        model, _ = make()
        best = Resume(tmp_path).load_weights(model, "best")
        assert best.name == f"epoch-{int(np.argmax(losses)) + 1:04}-step-000000.safetensors"

    def test_there_is_nothing_to_load(self, tmp_path):
        with pytest.raises(ArgumentError, match="^which must be 'last' or 'best', found 'first'.$"):
            Resume(tmp_path).load_weights(small_model(), "first")
        with pytest.raises(CheckpointError, match=f"^{tmp_path} contains no save of a fit.$"):
            Resume(tmp_path).load_weights(small_model())


class Interrupt(keras.callbacks.Callback):
    """Sends Ctrl-C to the process, before a step or in the validation."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def on_train_batch_begin(self, batch, logs=None):
        if self.place == batch:
            os.kill(os.getpid(), signal.SIGINT)

    def on_test_batch_begin(self, batch, logs=None):
        if self.place == "validation":
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("place", "file", "told"),
    [
        (1, "epoch-0000-step-000002", "epoch 1, after step 2"),
        ("validation", "epoch-0000-step-000005", "epoch 1, after step 4"),
    ],
)
@pytest.mark.jax
def test_after_ctrl_c_the_step_finishes_and_is_saved(place, file, told, tmp_path, capsys):
    resuming._finished.clear()
    keras.utils.set_random_seed(3)
    model, fit = make()
    callbacks = [Interrupt(place), Watch(), Resume(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(**fit, callbacks=callbacks, verbose=0)
    path = tmp_path / "fit-1" / f"{file}.safetensors"
    assert (
        f"Training was interrupted in {told}. {path} is saved: start the same script again to "
        "continue.\n"
    ) in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def again():
        return make(callbacks=[Interrupt(None)])

    expected = outcome(lambda: make(callbacks=[Interrupt(None)]))
    outcome(again, tmp_path, every_steps=None).require_same(expected)
