"""Several devices of TensorFlow compute the numbers of one; they are logical ones of the CPU.

`helpers_devices` has the cases: batches of 10, 10 and 7 rows, and what depends on which rows or
targets a device has. The losses and metrics of 21 steps, evaluations and predictions are equal
within 1e-5, weights within 5e-5.
"""

import textwrap

import pytest
import tensorflow as tf
from helpers_processes import output_of

from finetune_tf.errors import ModelError
from finetune_tf.training.devices import check_strategy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "cases"),
    [
        (1, ["two_labels"]),
        (2, ["two_labels", "uneven_first_batch", "tokens", "words", "class_weights"]),
        (2, ["answers", "several_labels", "number", "shares", "ordinal"]),
        (2, ["smoothed", "focal", "sums", "sums_of_weights", "regularized"]),
        (2, ["functions_of_a_batch", "rows_compared", "pairs", "pairs_with_scores"]),
        (2, ["l2sp_and_distillation", "r_drop_and_contrast"]),
        (2, ["decoder", "decoder_packed", "encoder_packed"]),
        (2, ["numbers_packed", "answers_packed"]),
        (4, ["two_labels", "fewer_rows_than_devices", "words", "sums_of_weights"]),
        (4, ["rows_compared", "pairs_with_scores", "r_drop_and_contrast"]),
        (4, ["decoder", "decoder_packed", "encoder_packed", "numbers_packed"]),
        (8, ["fewer_rows_than_devices"]),
    ],
)
def test_several_devices_compute_what_one_does(devices, cases):
    assert output_of("-m", "helpers_devices", str(devices), *cases).count(" done\n") == len(cases)


REFUSED = """
    import sys
    sys.argv = ["", "2"]
    import keras
    from helpers_devices import rows

    import finetune_tf as ft
    from finetune_tf.errors import ModelError

    def refused(message, call):
        try:
            call()
        except ModelError as error:
            assert message in str(error), error
            print("refused")

    class Largest(ft.objectives.Objective):
        def term(self, step):
            return keras.ops.max(step.outputs)

    with ft.distribute("data"), ft.messages.quiet():
        for objective in (ft.objectives.Mixup(), Largest()):
            message = f"{type(objective).__name__} computes with the rows of a batch, of which each"
            refused(message, lambda: rows(objectives=[objective]))
        refused("accumulate", lambda: rows(**ft.presets.cross_entropy(accumulate=2)))
        config = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
        resnet = ft.load(config, "image-classification", labels=["a", "b"], image_size=32)
        ft.train_batch_statistics(resnet)
        resnet.compile()
        refused("trains on the statistics of a batch", resnet.make_train_function)
        model, data = rows()
        inner = model.get_layer("block_0")
        plain = inner.call

        def adding(x, **more):
            inner.add_loss(keras.ops.mean(x))
            return plain(x, **more)

        inner.call = adding
        refused("adds a loss with add_loss", lambda: model.fit(**data, verbose=0))
"""


@pytest.mark.slow
def test_what_depends_on_the_rows_of_one_device_is_refused():
    assert output_of("-c", textwrap.dedent(REFUSED)).count("refused\n") == 5


DISTRIBUTED = """
    import sys
    sys.argv = ["", "2"]
    import keras
    import numpy as np
    from helpers_devices import TEXTS, write_checkpoint, FOLDER

    import finetune_tf as ft

    def losses():
        keras.utils.set_random_seed(0)
        examples = ft.data.from_arrays(TEXTS, ["good" if "good" in t else "other" for t in TEXTS])
        model = ft.load(folder, labels=examples.labels)
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
        batches = examples.batches(model, batch_size=8, shuffle=True)
        history = model.fit(batches, epochs=2, verbose=0).history
        scores = [each.score for each in ft.predict(model, TEXTS)]
        model.save_pretrained(FOLDER / "saved")
        return model.number_of_devices, history["loss"] + scores

    folder = write_checkpoint(FOLDER / "bert")
    one, expected = losses()
    with ft.distribute("auto") as distribution:
        two, found = losses()
    assert (one, two) == (1, 2) and distribution.devices == ("CPU:0", "CPU:1")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert losses() == (1, expected)

    def scores(policy):
        keras.utils.set_random_seed(0)
        examples = ft.data.from_arrays(TEXTS, ["good" if "good" in t else "other" for t in TEXTS])
        found = ft.finetune(folder, examples, policy=policy, epochs=1, batch_size=8)
        return [each.score for each in ft.predict(found.model, TEXTS)]

    for policy in ("full", "head"):  # the features of frozen stages are cached
        expected = scores(policy)
        with ft.distribute("data"):
            np.testing.assert_allclose(scores(policy), expected, atol=1e-5)
    print("equal")
"""


@pytest.mark.slow
def test_the_whole_road_on_all_devices():
    assert output_of("-c", textwrap.dedent(DISTRIBUTED)).endswith("equal\n")


@pytest.mark.parametrize("name", ["MultiWorkerMirroredStrategy", "ParameterServerStrategy"])
def test_strategies_of_several_machines_are_refused(name):
    other = object.__new__(getattr(tf.distribute.experimental, name))  # needs no cluster
    with pytest.raises(ModelError, match=f"under {name}.*keras issue 20585.*KERAS_BACKEND=jax"):
        check_strategy(other)


@pytest.mark.slow
def test_a_model_of_a_strategy_of_several_machines_does_not_compile():
    script = """
        import tensorflow as tf
        workers = tf.distribute.MultiWorkerMirroredStrategy()
        from helpers_models import small_model
        from finetune_tf.errors import ModelError
        with workers.scope():
            try:
                small_model().compile()
            except ModelError as error:
                print(error)
    """
    assert "KERAS_BACKEND=jax" in output_of("-c", textwrap.dedent(script))
