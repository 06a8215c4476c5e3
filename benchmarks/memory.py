"""Memory of many models, one after the other in one process, as in a search or cross-validation.

Each round loads a model, works with it, deletes it, and prints the resident memory. The last round
should take no more than the second: the first one brings the libraries and the buffers.

    python benchmarks/memory.py                      # fit, the default
    python benchmarks/memory.py predict --rounds 8   # or evaluate, cache, checkpointing, eager
"""

import argparse
import gc

import keras
import psutil

import finetune_tf as ft
from finetune_tf.demo import minilm

BATCH_SIZE = 16


def _fit(model: ft.FineTuneModel, examples: ft.data.Examples, **options: bool) -> None:
    model.compile(**ft.presets.cross_entropy(), **options)
    model.fit(examples.batches(model, BATCH_SIZE, shuffle=True), epochs=1, verbose=0)


def _cache(model: ft.FineTuneModel, examples: ft.data.Examples) -> None:
    ft.train_only(model, ft.select.head() | ft.select.blocks(-1))
    learner = ft.cache_features(model)
    learner.compile()
    learner.fit(examples.batches(learner, BATCH_SIZE, shuffle=True), epochs=1, verbose=0)


#: What a round does with its model.
WORK = {
    "fit": _fit,
    "checkpointing": _fit,
    "eager": lambda model, examples: _fit(model, examples, run_eagerly=True),
    "predict": lambda model, examples: ft.predict(model, examples),
    "evaluate": lambda model, examples: ft.evaluate(model, examples),
    "cache": _cache,
}


def main() -> None:
    """Prints the resident memory after each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="?", default="fit", choices=WORK)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--checkpoint", default=str(minilm()))
    given = parser.parse_args()
    examples = ft.data.reviews("train")[: given.texts]
    resident = []
    for _ in range(given.rounds):
        with ft.messages.quiet():
            model = ft.load(
                given.checkpoint,
                "text-classification",
                labels=examples.labels,
                gradient_checkpointing=given.work == "checkpointing",
            )
            WORK[given.work](model, examples)
        del model
        keras.backend.clear_session()
        gc.collect()
        resident.append(psutil.Process().memory_info().rss / 1e6)
        print(f"round {len(resident)}: {resident[-1]:,.0f} MB", flush=True)
    print(f"{given.work}: {resident[-1] - resident[1]:+,.0f} MB from round 2 to {given.rounds}")


if __name__ == "__main__":
    main()
