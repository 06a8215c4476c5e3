"""Python in processes of its own, and trainings on JAX, which run `distribution/job.py`."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPT = TESTS / "distribution" / "job.py"


def output_of(*arguments, **environment):
    """What Python prints with these arguments; the test fails if it ends with an error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def start(checkpoint, devices, distribute=None, **job):
    pytest.importorskip("jax")
    job = {"checkpoint": str(checkpoint), "devices": devices, "distribute": distribute, **job}
    return subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), json.dumps(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def start_two(checkpoint, devices=2, **job):
    """Starts two processes that find each other over the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"kind": "data", "coordinator_address": address, "num_processes": 2}
    return [start(checkpoint, devices, common | {"process_id": i}, **job) for i in range(2)]


@contextlib.contextmanager
def ended(processes):
    """Ends processes that a failed test has left."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def result(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    *said, last = output.splitlines()
    found = json.loads(last) if last.startswith("{") else {}
    return found | {"said": output if not found else "\n".join(said)}
