"""Fits with features that keep a state, used together."""

from pathlib import Path

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf import callbacks, objectives, select

REFERENCES = Path(__file__).resolve().parent / "references"
HEAD, TOP = select.head(), select.head() | select.blocks(-1)


def loaded(folder="bert/text-classification"):
    return ft.load(REFERENCES / folder, dropout=0.1)


def fit_of(model, preset, callbacks=(), epochs=3, **options):
    """Compiles a model; returns it with the arguments of a fit on random token ids."""
    model.compile(**preset)
    high = min(model.config.vocab_size, 20)
    ids = np.random.default_rng(0).integers(5, high, (16, 6)).astype("int32")
    data = {"x": ids, "y": np.arange(16) % len(model.labels), "batch_size": 4}
    watched = {"validation_data": (ids[:8], data["y"][:8])}
    return model, {**data, **watched, "epochs": epochs, "callbacks": [*callbacks], **options}


def rates_averages_and_unfreezing():
    model = loaded()
    ft.train_only(model, HEAD)
    preset = ft.presets.cross_entropy(
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=2,
        accumulate=2,
        rates={HEAD: 10.0, select.blocks(-1): 0.5},
        objectives=[objectives.RDrop(1.0), objectives.NEFTune(5.0)],
    )
    plan = callbacks.Unfreeze({0: HEAD, 1: TOP, 2: select.everything()})
    return fit_of(model, preset, [plan, callbacks.EMA(0.9)])


def adapters_and_mixup():
    model = loaded("deberta/text-classification")
    ft.adapters.add(model, ft.adapters.LoRA(rank=2, dropout=0.2, targets="all"))
    preset = ft.presets.cross_entropy(schedule="one-cycle", objectives=[objectives.Mixup(0.4)])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    return fit_of(model, preset, [stop, callbacks.AverageLast(2)])


def adapters_that_are_unfrozen_when_validation_stalls():
    model = loaded("modernbert/text-classification")
    ft.adapters.add(model, ft.adapters.LoRA(rank=2, use_dora=True))
    plan = [HEAD, HEAD | select.adapters()]
    wakes = callbacks.Unfreeze(plan, monitor="val_loss", min_delta=10.0)
    preset = ft.presets.focal(rates=[(select.adapters(), 5.0)])
    return fit_of(model, preset, [wakes], class_weight="balanced")


def a_student_with_its_teacher():
    teacher = loaded()
    student = ft.keep_blocks(teacher, [1])
    terms = [objectives.Distillation(teacher, hidden="last"), objectives.L2SP(0.1)]
    preset = ft.presets.cross_entropy(learning_rate=1e-3, objectives=terms, weight_decay=0.0)
    return fit_of(student, preset, [callbacks.EMA(0.9)])


#: Makes a model and the arguments of its fit, from scratch.
COMBINED = {
    make.__name__: make
    for make in (
        rates_averages_and_unfreezing,
        adapters_and_mixup,
        adapters_that_are_unfrozen_when_validation_stalls,
        a_student_with_its_teacher,
    )
}
