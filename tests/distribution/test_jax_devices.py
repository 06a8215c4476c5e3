"""Several devices on JAX, virtual ones of a CPU, and two processes: the numbers of one device."""

import signal
import time

import numpy as np
import pytest
from helpers_models import write_checkpoint
from helpers_processes import ended, result, start, start_two

import finetune_tf as ft

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """With dropout, whose masks do not depend on the devices."""
    folder = tmp_path_factory.mktemp("distribution") / "one-block"
    return write_checkpoint(folder, blocks=1, hidden_dropout_prob=0.1)


@pytest.fixture(scope="module")
def one_device(checkpoint):
    return result(start(checkpoint, 1))


def check_equal(found, expected):
    assert len(expected["losses"]) == 24
    np.testing.assert_allclose(found["losses"], expected["losses"], atol=1e-5, rtol=0)
    for one, other in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, rtol=0)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)
    np.testing.assert_allclose(found["predicted"], expected["predicted"], atol=1e-4)
    assert found["history"].keys() == expected["history"].keys() >= {"val_loss", "val_accuracy"}
    for name, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][name], values, atol=2e-5)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_rows_on_several_devices(devices, checkpoint, one_device):
    found = result(start(checkpoint, devices, {"kind": "data"}))
    check_equal(found, one_device)
    assert all(f"'rows': {devices}" in placed for placed in found["placed"].values())


@pytest.mark.parametrize("parts", [None, 2])
def test_parts_of_weights_on_several_devices(parts, checkpoint, one_device):
    found = result(start(checkpoint, 4, {"kind": "model", "parts": parts}))
    check_equal(found, one_device)
    placed = found["placed"]
    assert "P(None, 'parts')" in placed["block_0/attention/query/kernel"]
    assert "P('parts', None)" in placed["block_0/attention/output/kernel"]
    assert "P('parts', None)" in placed["embeddings/word/embeddings"] or parts is None


@pytest.mark.parametrize("kind", ["data", "model"])
def test_moments_in_the_memory_of_the_host(kind, checkpoint, one_device):
    found = result(start(checkpoint, 2, {"kind": kind}, preset={"state_memory": "host"}))
    check_equal(found, one_device)
    placed = found["placed"]
    (moment,) = (p for p in placed if p.endswith("attention_query_kernel_velocity"))
    assert "memory_kind=pinned_host" in placed[moment]
    assert "memory_kind=pinned_host" not in placed["block_0/attention/query/kernel"]
    assert kind == "data" or "'parts'" in placed[moment]


def test_two_processes(checkpoint, one_device, tmp_path):
    """Two processes with two devices each; process 0 writes the checkpoint, once."""
    with ended(start_two(checkpoint, folder=str(tmp_path / "saved"))) as processes:
        found, other = map(result, processes)
    check_equal(found, one_device)
    assert "Saved" not in other["said"] and "Process 1 of 2." in other["said"]
    assert "Saved" in found["said"]
    saved = ft.load(tmp_path / "saved")
    for one, weight in zip(found["weights"], saved.get_weights(), strict=True):
        np.testing.assert_allclose(one, np.ravel(weight), atol=1e-6)
    assert (tmp_path / "saved.keras").stat().st_size > 1000


def new_heads(processes):
    """The values of the new head in each process, as a line."""
    with ended(processes):
        outputs = [process.communicate(timeout=600)[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            assert process.returncode == 0, output[-3000:]
    lines = [line for output in outputs for line in output.splitlines()]
    heads = [line for line in lines if line.startswith("head [")]
    assert len(heads) == len(processes)
    return heads


def test_processes_get_one_seed(checkpoint):
    """Without a seed in the script, the new head is the same in both processes."""
    first, second = new_heads(start_two(checkpoint, devices=1, unseeded=True, epochs=1))
    assert first == second


def test_a_seed_that_is_set_before_is_kept(checkpoint):
    seeded = {"unseeded": True, "seed_before": 37, "epochs": 1}
    first, second = new_heads(start_two(checkpoint, devices=1, **seeded))
    (alone,) = new_heads([start(checkpoint, 1, **seeded)])
    assert first == second == alone


def says_that_another_was_lost(output):
    """In the error of a step that waits for it; or JAX ends the process, whichever comes first."""
    assert "If a process is lost" in output
    return "another process of the job was lost" in output or "another task died" in output


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_job(lost, checkpoint):
    with ended(start_two(checkpoint, devices=1, shows_steps=True, epochs=500)) as processes:
        for line in processes[lost].stdout:
            if line.startswith("step 10"):
                break
        processes[lost].send_signal(signal.SIGKILL)
        begin = time.monotonic()
        output, _ = processes[1 - lost].communicate(timeout=60)
        assert time.monotonic() - begin < 30
        assert processes[1 - lost].returncode != 0
        assert says_that_another_was_lost(output)


def test_an_error_in_one_process_ends_the_job(checkpoint):
    with ended(start_two(checkpoint, devices=1, fails=[10, 1], epochs=500)) as processes:
        failed, _ = processes[1].communicate(timeout=600)
        begin = time.monotonic()
        assert "ValueError: the disk of this process is full" in failed
        assert processes[1].returncode == 1
        other, _ = processes[0].communicate(timeout=60)
        assert time.monotonic() - begin < 30
        assert processes[0].returncode != 0 and says_that_another_was_lost(other)


@pytest.mark.parametrize("writer", ["safetensors", "orbax"])
def test_a_job_that_lost_a_process_continues_exactly(writer, checkpoint, tmp_path):
    if writer == "orbax":
        pytest.importorskip("orbax.checkpoint")
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    with ended(start_two(checkpoint, devices=1, resume=whole, writer=writer)) as processes:
        expected, _ = map(result, processes)
    with ended(
        start_two(checkpoint, devices=1, shows_steps=True, resume=broken, writer=writer)
    ) as processes:
        for line in processes[1].stdout:
            if line.startswith("step 10"):
                break
        processes[1].kill()
        processes[0].communicate(timeout=60)
        assert processes[0].returncode != 0
    with ended(start_two(checkpoint, devices=1, resume=broken, writer=writer)) as processes:
        found, _ = map(result, processes)
    assert found["weights"] == expected["weights"]
    assert found["history"] == expected["history"]
    assert found["losses"] == expected["losses"]  # those before the loss are in the save
    assert "continues in epoch" in found["said"]
    assert "continues in epoch" not in expected["said"]


def test_processes_whose_folders_differ_do_not_continue(checkpoint, tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    with ended(start_two(checkpoint, devices=1, resume=str(shared), epochs=1)) as processes:
        list(map(result, processes))
    with ended(start_two(checkpoint, devices=1, resumes=[str(shared), str(own)])) as processes:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    newest = "epoch-0001-step-000000.safetensors"
    for process, output, found in zip(processes, outputs, [newest, "none"], strict=True):
        assert process.returncode != 0
        assert f"this one {found}. Give all of them the same folder" in output
