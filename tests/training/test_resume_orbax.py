"""Saves through Orbax: exact on JAX, complete or not there, and an error elsewhere."""

import os
import shutil
import subprocess
import sys
import time

import keras
import ml_dtypes  # noqa: F401  (registers bfloat16 in NumPy)
import numpy as np
import pytest
from helpers_resume import CASES, Broken, broken_and_resumed, outcome

from finetune_tf.callbacks import Resume
from finetune_tf.errors import ArgumentError, CheckpointError, MissingExtraError, ModelError
from finetune_tf.training.resuming import orbax_saves
from finetune_tf.training.resuming.files import NotFiniteError, Stored
from finetune_tf.training.resuming.orbax_saves import OrbaxSaves
from finetune_tf.training.resuming.saves import Saves, read

needs_orbax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="saves arrays of JAX")
pytestmark = [
    pytest.mark.filterwarnings("ignore:A learning rate of"),
    # TensorStore finishes reading a damaged folder after Orbax has given up.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def orbax():
    return pytest.importorskip("orbax.checkpoint")


def test_arguments(monkeypatch, tmp_path):
    with pytest.raises(ArgumentError, match="writer must be 'safetensors' or 'orbax', found 'zip'"):
        Resume(tmp_path, writer="zip")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    message = 'writer="orbax" saves arrays of JAX, found the backend tensorflow: leave it out, or'
    with pytest.raises(ModelError, match=message):
        Resume(tmp_path, writer="orbax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)  # as if it were not installed
    message = r"needs orbax-checkpoint, which is not installed.*'finetune-tf\[orbax\]'"
    with pytest.raises(MissingExtraError, match=message):
        Resume(tmp_path, writer="orbax")


ARRAYS = {
    "model/0": np.linspace(-1, 1, 6000, dtype="float32").reshape(20, 300),
    "model/1": np.array([1.5, -0.0, 2.0], "bfloat16"),
    "optimizer/0": np.array(7, "int32"),
    "optimizer/1": np.array([[True, False]]),
    "metrics/0": np.zeros((0, 2), "float32"),
    "model/2": np.array([3, 2**32 - 1], "uint32"),
}


def stored(array, must_be_finite=False):
    import jax.numpy as jnp

    tensor = jnp.asarray(array)
    return Stored(array.shape, array.dtype.name, lambda: array, must_be_finite, tensor)


def nothing_frozen(arrays):
    return arrays, {}


def write(saves, place=(1, 0), arrays=ARRAYS, **state):
    collected = {name: stored(array, True) for name, array in arrays.items()}
    text = np.arange(3.0)
    collected["values/0"] = Stored(text.shape, "float64", lambda: text)
    return saves.begin(place, state, collected, nothing_frozen)()


@needs_orbax
@pytest.mark.jax
class TestOneSave:
    """Reading and writing alone."""

    def test_what_is_read_is_what_was_written(self, orbax, tmp_path):
        path = write(OrbaxSaves(tmp_path, 2), best=None)
        assert path.name == "epoch-0001-step-000000.orbax"
        state, arrays = read(path)
        assert state["best"] is None
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
            assert arrays[name].tobytes() == array.tobytes()
        np.testing.assert_array_equal(arrays["values/0"], np.arange(3.0))

    @pytest.mark.slow
    def test_a_changed_byte_is_noticed_or_changes_nothing(self, orbax, tmp_path):
        path = write(OrbaxSaves(tmp_path, 2))
        expected = read(path)[1]
        noticed = 0
        for file in sorted(path.rglob("*")):
            whole = file.read_bytes() if file.is_file() else b""
            for place in {*range(0, len(whole), max(len(whole) // 12, 1)), len(whole) - 1}:
                if not whole:
                    continue
                changed = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
                file.write_bytes(changed)
                try:
                    found = read(path)[1]
                except CheckpointError as error:
                    assert "is damaged" in str(error) or "cannot be read" in str(error)
                    noticed += 1
                else:
                    assert found.keys() == expected.keys()
                    for name, array in expected.items():
                        assert found[name].tobytes() == array.tobytes(), (file, place)
            if whole:
                file.write_bytes(whole)
        assert noticed > 20

    @pytest.mark.slow
    @pytest.mark.parametrize("lost", ["arrays", "arrays/manifest.ocdbt", "state.safetensors"])
    def test_a_save_with_a_lost_file_is_put_aside_or_removed(self, orbax, lost, tmp_path, capsys):
        saves = OrbaxSaves(tmp_path, 2)
        first, second = write(saves, (1, 0), n=1), write(saves, (2, 0), n=2)
        if (second / lost).is_dir():
            (second / lost).rename(tmp_path / "elsewhere")
        else:
            (second / lost).unlink()
        path, state, _ = saves.newest()
        assert (path, state["n"]) == (first, 1)
        assert not second.exists()
        if lost != "state.safetensors":  # without it, the save was never complete
            assert f"{second} cannot be read: " in capsys.readouterr().out
            assert second.with_name(second.name + ".damaged").is_dir()

    @pytest.mark.slow
    def test_the_newest_are_kept_and_the_best_of_both_kinds(self, orbax, tmp_path):
        best = {"file": "epoch-0001-step-000000.orbax"}
        saves = OrbaxSaves(tmp_path, 2)
        for place in [(0, 4), (1, 0), (1, 5)]:
            write(saves, place, best=best)
        Saves(tmp_path, 2).write((2, 0), {"best": best}, {"model/0": stored(np.zeros(2))})
        write(saves, (2, 1), best=best)
        assert [path.name for path in saves.paths()] == [
            "epoch-0002-step-000001.orbax",
            "epoch-0002-step-000000.safetensors",
            "epoch-0001-step-000000.orbax",
        ]

    def test_a_weight_that_is_not_finite_is_not_saved(self, orbax, tmp_path):
        for value in (np.nan, np.inf):
            with pytest.raises(NotFiniteError):
                write(OrbaxSaves(tmp_path, 2), arrays={"model/0": np.array([1, value], "float32")})
        assert list(tmp_path.iterdir()) == []


@needs_orbax
@pytest.mark.jax
def test_a_save_that_cannot_be_written_ends_a_job_of_several_processes(
    orbax, monkeypatch, tmp_path
):
    # The other processes wait for each part of a save, so that none can go on without one.
    monkeypatch.setattr(orbax_saves, "several_processes", lambda: True)
    (tmp_path / "file").write_text("not a folder")
    message = "file/run/.* cannot be written: .*This ends the job. Start all processes again"
    with pytest.raises(ModelError, match=message):
        write(OrbaxSaves(tmp_path / "file" / "run", 2))


def test_the_name_of_a_save_follows_from_its_place(tmp_path):
    assert OrbaxSaves(tmp_path, 2).path((3, 17)) == tmp_path / "epoch-0003-step-000017.orbax"


DIVIDED = """
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from finetune_tf.training.resuming.files import Stored
from finetune_tf.training.resuming.orbax_saves import OrbaxSaves
from finetune_tf.training.resuming.saves import read

array = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")
divided = NamedSharding(jax.make_mesh((2, 2), ("a", "b")), PartitionSpec("b", "a"))
found = []
for number, tensor in enumerate([jax.device_put(array, divided), jax.device_put(array)]):
    stored = {"model/0": Stored(array.shape, "float32", lambda: array, True, tensor)}
    saves = OrbaxSaves(Path(sys.argv[1]), 2)
    path = saves.begin((number, 0), {}, stored, lambda arrays: (arrays, {}))()
    state, arrays = read(path)
    assert arrays["model/0"].tobytes() == array.tobytes()
    found.append(state["arrays"])
assert found[0] == found[1]  # checksums do not depend on how an array is divided
print("equal")
"""


@needs_orbax
@pytest.mark.jax
@pytest.mark.slow
def test_arrays_that_are_divided_among_devices(orbax, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIVIDED, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("equal\n"), done.stderr[-3000:]


@needs_orbax
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("name", ["averages", "best weights", "head", "unfreezing"])
def test_a_broken_fit_ends_like_a_whole_one(name, orbax, tmp_path):
    make = CASES[name]
    expected = outcome(make)
    places = ((0, 3), (1, "validation"), (2, 1))
    broken_and_resumed(make, tmp_path, *places, writer="orbax").require_same(expected)


@needs_orbax
@pytest.mark.jax
@pytest.mark.slow
def test_a_damaged_save_falls_back_to_the_one_before(orbax, tmp_path, capsys):
    make = CASES["plain"]
    expected = outcome(make)
    with pytest.raises(Broken):
        outcome(make, tmp_path, (1, 3), writer="orbax")
    newest = tmp_path / "fit-1" / "epoch-0001-step-000002.orbax"
    (manifest,) = (newest / "arrays").glob("manifest*")
    manifest.write_bytes(manifest.read_bytes()[:10])
    outcome(make, tmp_path, writer="orbax").require_same(expected)
    printed = capsys.readouterr().out
    assert f"{newest} cannot be read: " in printed
    assert f"The run in {tmp_path}/fit-1 continues in epoch 2 of 3 epochs.\n" in printed


@needs_orbax
@pytest.mark.jax
@pytest.mark.slow
def test_on_a_full_disk_training_continues(orbax, tmp_path, capsys):
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:

        class Fill(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 3:
                    while not Saves(tmp_path / "fit-1", 2).paths():
                        time.sleep(0.01)  # until the first save is complete
                    room = os.statvfs(tmp_path)
                    (tmp_path / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize))

        def filling():
            model, fit = CASES["plain"]()
            return model, fit | {"epochs": 1, "callbacks": [Fill()]}

        outcome(filling, tmp_path, writer="orbax")
        saves = tmp_path / "fit-1"
        assert [path.name for path in saves.iterdir()] == ["epoch-0000-step-000002.orbax"]
        printed = capsys.readouterr().out
        assert f"{saves}/epoch-0001-step-000000.orbax cannot be written: " in printed
        assert f"Training continues. The last save is {saves}/epoch-0000-step-000002.o" in printed
        (tmp_path / "filler").unlink()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=False)


@needs_orbax
@pytest.mark.jax
@pytest.mark.slow
def test_a_fit_may_change_its_writer(orbax, tmp_path):
    make = CASES["plain"]
    expected = outcome(make)
    for at, writer in (((0, 3), "orbax"), ((1, 3), "safetensors"), ((2, 3), "orbax")):
        with pytest.raises(Broken):
            outcome(make, tmp_path, at, writer=writer)
    outcome(make, tmp_path).require_same(expected)
    model, _ = make()
    resume = Resume(tmp_path)
    assert resume.load_weights(model).suffix == ".safetensors"
