"""A training on JAX that the tests of several devices run in processes of its own.

    python job.py JOB_AS_JSON

The job is a dict: `devices`, virtual CPU devices of a process; `distribute`, the arguments of
`ft.distribute`, or null; and options of the training. The last line of the output is the result of
process 0 as JSON; with `images`, a folder, that of each process.
"""

import json
import os
import sys
from pathlib import Path

JOB = json.loads(sys.argv[1])
os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={JOB['devices']}"
sys.path.insert(0, str(Path(__file__).parents[1]))

import finetune_tf as ft  # noqa: E402

if "seed_before" in JOB:
    import keras

    keras.utils.set_random_seed(JOB["seed_before"])
DISTRIBUTION = ft.distribute(**JOB["distribute"]) if JOB["distribute"] else None

import keras  # noqa: E402
import numpy as np  # noqa: E402
from helpers_models import ENGLISH  # noqa: E402

from finetune_tf.images import ImageProcessor  # noqa: E402
from finetune_tf.training import optimizers  # noqa: E402

optimizers.SMALLEST_NARROW = 16  # the models are small


def examples(rows, seed=0):
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(ENGLISH, random.integers(3, 9))) for _ in range(rows)]
    return ft.data.from_arrays(texts, ["good" if "good" in text else "other" for text in texts])


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs):
        self.values.append(float(logs["loss"]))
        if "fails" in JOB and JOB["fails"] == [len(self.values), DISTRIBUTION.process_id]:
            raise ValueError("the disk of this process is full")
        if JOB.get("shows_steps"):
            print(f"step {len(self.values)}", flush=True)


def main():
    if not JOB.get("unseeded"):
        keras.utils.set_random_seed(0)
    train = examples(rows=43)  # batches of 8, and one of 3
    model = ft.load(JOB["checkpoint"], labels=train.labels)
    print("head", np.asarray(model.variables[-2]).ravel().tolist(), flush=True)
    losses = Losses()
    callbacks = [losses]
    if "resumes" in JOB:  # a folder of each process
        JOB["resume"] = JOB["resumes"][DISTRIBUTION.process_id]
    if JOB.get("resume"):
        writer = JOB.get("writer", "safetensors")
        callbacks.append(ft.callbacks.Resume(JOB["resume"], every_steps=4, writer=writer))
    model.compile(**ft.presets.cross_entropy(**JOB.get("preset", {})))
    options = JOB.get("batches", {"batch_size": 8, "shuffle": True, "buckets": 1})
    batches = train.batches(model, **options)
    history = model.fit(
        batches,
        epochs=JOB.get("epochs", 4),
        validation_data=train.batches(model, batch_size=8, buckets=1),
        class_weight={"good": 2.0},
        callbacks=callbacks,
        verbose=0,
    )
    logits = model.predict(train.batches(model, batch_size=8, buckets=1), verbose=0)
    weights = [np.asarray(weight, "float64") for weight in model.get_weights()]
    if JOB.get("folder"):
        model.save_pretrained(JOB["folder"])
        model.save(JOB["folder"] + ".keras")
        assert Path(JOB["folder"], "config.json").exists()  # in every process
    result = {
        "losses": losses.values,
        "history": history.history,
        "logits": logits.tolist(),
        "weights": [weight.ravel().tolist() for weight in weights],
        "predicted": [each.score for each in ft.predict(model, train.columns["text"][:5])],
        "placed": {
            variable.path: str(variable.value.sharding)
            for variable in [*model.variables, *model.optimizer.variables]
        },
    }
    if DISTRIBUTION is None or DISTRIBUTION.is_first:
        print(json.dumps(result), flush=True)


def images():
    """Two epochs on images in their order, an evaluation and predictions; tells what is opened."""
    opened, prepare = [], ImageProcessor.__call__

    def noting(processor, image):
        opened.append(Path(image).name)
        return prepare(processor, image)

    ImageProcessor.__call__ = noting
    keras.utils.set_random_seed(0)
    paths = sorted(Path(JOB["images"]).iterdir())
    train = ft.data.from_arrays(image=paths, label=[path.name.split("-")[1] for path in paths])
    model = ft.load(JOB["checkpoint"], labels=train.labels, new_head=True)
    losses = Losses()
    history = model.fit(train.batches(model, 4), epochs=2, callbacks=[losses], verbose=0)
    fitted = sorted(opened)
    evaluated = model.evaluate(train.batches(model, 4), verbose=0)
    again = sorted(opened)[len(fitted) :]
    opened.clear()
    others = [str(path) for path in paths[:5]]  # not the column of `train`, which is stored
    predicted = [each.score for each in ft.predict(model, image=others)]
    result = {
        "losses": losses.values,
        "history": history.history,
        "evaluated": evaluated,
        "predicted": predicted,
        "opened": fitted,
        "opened again": again,
        "opened by predict": sorted(opened),
    }
    print(json.dumps(result), flush=True)


if "images" in JOB:
    images()
else:
    main()
