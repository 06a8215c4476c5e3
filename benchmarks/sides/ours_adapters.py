"""Training steps of finetune_tf with adapters, for `adapters`.

Settings: "full", "lora-qv", "lora-all", "dora-all", "ia3".
"""

import common

job = common.job()

import keras  # noqa: E402
import keras_jobs  # noqa: E402
import numpy as np  # noqa: E402

import finetune_tf as ft  # noqa: E402

IMPORTED = common.peak_mb()
RANK = 8
ADAPTERS = {
    "full": None,
    "lora-qv": ft.adapters.LoRA(rank=RANK),
    "lora-all": ft.adapters.LoRA(rank=RANK, targets="all"),
    "dora-all": ft.adapters.LoRA(rank=RANK, targets="all", use_dora=True),
    "ia3": ft.adapters.IA3(),
}


def inputs(ids: np.ndarray) -> dict:
    """Returns all inputs of a BERT for token ids."""
    types, mask = np.zeros_like(ids), np.ones_like(ids)
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def main() -> None:
    """Fits a model on one batch again and again, and prints the seconds of a step."""
    adapter = ADAPTERS[job.setting]
    with ft.messages.quiet():
        dtype = "mixed_bfloat16" if job.dtype == "bfloat16" else "float32"
        model = ft.load(job.checkpoint, labels=["0", "1"], pooling="pooler", dtype=dtype)
        if adapter is not None:
            ft.adapters.add(model, adapter)
        rate = 2e-5 if adapter is None else 5e-4
        model.compile(**ft.presets.cross_entropy(learning_rate=rate))
    clock = common.StepClock()

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            clock.mark()

    batches = keras_jobs.fixed(job, inputs, common.WARM_UP + job.steps)
    model.fit(batches, verbose=0, callbacks=[Steps()])
    common.tell(clock.result(), IMPORTED)


main()
