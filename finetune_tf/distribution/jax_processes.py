"""Several processes on JAX: how they find each other, and what they agree on."""

import os
import sys
from typing import Any

import keras
import numpy as np

from finetune_tf.base.keras_internals import random_seed
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import say

# A process that is lost is noticed after so many seconds, and the others end; JAX waits 100.
_HEARTBEAT_SECONDS = 10


def join(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> tuple[int, int]:
    """Joins the processes of a job, and gives all of them the seed of process 0.

    Args:
        coordinator_address: "host:port" of process 0; with the other arguments, None if JAX knows
            them from the cluster, as on TPU pods and under SLURM.
        num_processes: The number of processes.
        process_id: The number of this process, from 0.

    Returns:
        The number of processes, and that of this process.

    Raises:
        ModelError: If JAX was used before, or the processes do not find each other.
    """
    import jax

    if jax.distributed.is_initialized():
        return jax.process_count(), jax.process_index()
    if jax.config.jax_platforms in (None, "", "cpu"):
        # Only for CPU devices: the default cannot communicate between processes.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise ArgumentError(
            "JAX knows of no cluster here: pass coordinator_address='host:port' of process 0, "
            f"num_processes= and process_id= ({error})."
        ) from error
    except RuntimeError as error:
        if "before" in str(error):
            raise ModelError(
                "The processes have to find each other before JAX computes anything: call "
                "ft.distribute first in the script, before models are loaded."
            ) from error
        raise ModelError(
            f"Process {process_id} did not find the others at {coordinator_address}: {error}"
        ) from error
    _share_seed()
    _end_at_once_after_errors()
    say(
        f"Process {jax.process_index()} of {jax.process_count()}. If a process is lost, the others "
        f"end after {_HEARTBEAT_SECONDS} seconds: start all of them again, and "
        "ft.callbacks.Resume continues."
    )
    return jax.process_count(), jax.process_index()


def _share_seed() -> None:
    """Seeds all processes like process 0: otherwise each of them would draw a head of its own."""
    from jax.experimental import multihost_utils

    seed = random_seed()
    if seed is None:
        seed = np.random.default_rng().integers(2**31)
    shared = multihost_utils.broadcast_one_to_all(np.uint32(seed))
    keras.utils.set_random_seed(int(shared))


def _end_at_once_after_errors() -> None:
    """Ends the process after an exception that nothing catches, so that the others end too.

    A process that ends in the usual way waits for the others first, which wait for it in a step.
    """
    report = sys.excepthook

    def report_and_end(*error: Any) -> None:
        report(*error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    sys.excepthook = report_and_end
