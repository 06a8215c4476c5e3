"""Private attributes of Keras: they exist in the installed version, and one module uses them."""

import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_tf
from finetune_tf import architectures
from finetune_tf.architectures import heads
from finetune_tf.base import keras_internals as internals

ROOT = Path(finetune_tf.__file__).parent
# Private names of Keras that no other module may read or set.
PRIVATE = sorted(set(re.findall(r"\._[a-z]\w*", Path(internals.__file__).read_text())))


def small_model():
    inner = keras.Sequential([keras.layers.Dense(3, name="dense")], name="inner")
    inputs = keras.Input((2,))
    return keras.Model(inputs, inner(inputs))


def test_no_other_module_uses_them():
    assert len(PRIVATE) > 10
    pattern = re.compile("|".join(rf"{re.escape(name)}\b" for name in [*PRIVATE, "keras.src"]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.name not in ("keras_internals.py", "keras_fits.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


class TestOptimizers:
    def test_inner_optimizer(self):
        adam = keras.optimizers.Adam(0.25)
        wrapper = keras.optimizers.LossScaleOptimizer(adam)
        assert internals.inner_optimizer(wrapper) is internals.inner_optimizer(adam) is adam
        assert internals.wrapped_optimizers(wrapper) == [adam]
        assert internals.wrapped_optimizers(adam) == []
        assert float(internals.rate_of(wrapper).numpy()) == 0.25

    def test_multi_optimizer(self):
        if not hasattr(keras.optimizers, "MultiOptimizer"):
            pytest.skip("this version of Keras has no MultiOptimizer")
        sgd, adam = keras.optimizers.SGD(), keras.optimizers.Adam()
        choose = keras.optimizers.OptimizerMap(sgd, {".*kernel": adam})
        optimizer = keras.optimizers.MultiOptimizer(choose)
        optimizer.build(small_model().trainable_variables)
        assert set(internals.wrapped_optimizers(optimizer)) == {sgd, adam}

    def test_a_schedule_is_stored_without_a_copy(self):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
        optimizer = keras.optimizers.SGD()
        internals.set_rate(optimizer, schedule)
        assert internals.rate_of(optimizer) is schedule

    def test_variables_and_step_counter(self):
        model = small_model()
        optimizer = keras.optimizers.SGD(gradient_accumulation_steps=3, use_ema=True)
        optimizer.build(model.trainable_variables)
        gradients = [keras.ops.ones(v.shape) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
        assert internals.optimized_variables(optimizer) == model.trainable_variables
        assert int(internals.step_counter(optimizer).numpy()) == 1
        assert int(optimizer.iterations) == 0
        for waiting in internals.accumulated_gradients(optimizer):
            np.testing.assert_array_equal(waiting, np.ones(waiting.shape))
        assert [v.shape for v in internals.moving_averages(optimizer)] == [
            v.shape for v in model.trainable_variables
        ]

    def test_exclusions_from_weight_decay(self):
        model = keras.Sequential(
            [keras.Input((2,)), *(keras.layers.Dense(1, name=name) for name in "ab")]
        )
        inner = keras.optimizers.AdamW(0.1, weight_decay=0.5)
        kernel = model.trainable_variables[0]
        inner.exclude_from_weight_decay(var_list=[kernel], var_names=["bias"])
        for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner)):
            lost = type(optimizer).from_config(optimizer.get_config())
            assert internals.inner_optimizer(lost)._use_weight_decay(kernel)
            renewed = type(optimizer).from_config(optimizer.get_config())
            internals.keep_exclusions(renewed, optimizer)
            innermost = internals.inner_optimizer(renewed)
            decayed = [v.path for v in model.trainable_variables if innermost._use_weight_decay(v)]
            assert [path.split("/")[-2:] for path in decayed] == [["b", "kernel"]]

    def test_summed_gradients_are_not_summed_again(self):
        optimizer = keras.optimizers.SGD()
        assert hasattr(optimizer, "_all_reduce_sum_gradients")
        internals.take_summed_gradients(optimizer)
        pairs = [("gradient", "variable")]
        assert optimizer._all_reduce_sum_gradients(pairs) == pairs


class TestLayersAndModels:
    def test_sublayers(self):
        model = small_model()
        names = [layer.name for layer in internals.all_layers(model)]
        assert names[0] == model.name and {"inner", "dense"} < set(names)
        assert model.get_layer("inner") in internals.sublayers(model)

    def test_variables_that_were_created_as_trainable(self):
        layer = keras.layers.BatchNormalization()
        layer.build((None, 2))
        layer.trainable = False
        assert [v.name for v in internals.own_variables(layer)] == ["gamma", "beta"]
        assert internals.trainable_flag(layer) is False
        internals.set_trainable_flag(layer, 1)
        assert internals.trainable_flag(layer) is layer.trainable is True

    def test_layers_that_add_losses(self):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="plain")])
        adding = keras.layers.ActivityRegularization(0.1, name="adding")
        model.add(adding)
        assert internals.layers_with_added_losses(keras.layers.Dense(1)) == []
        model(np.ones((1, 2)))
        assert internals.layers_with_added_losses(model) == [adding]

    def test_losses_that_are_not_divided_among_devices(self):
        class Two:
            num_replicas_in_sync = 2

        def loss():
            return float(keras.losses.MeanSquaredError()(np.array([[0.0]]), np.array([[4.0]])))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tf.distribute, "get_strategy", Two)
            with internals.undivided_losses():
                assert loss() == 16.0
            assert loss() == 8.0  # Keras divides it again

    def test_a_seed_generator_for_a_built_layer(self):
        dropout = keras.layers.Dropout(0.0)
        inputs = keras.Input((1000,))
        model = keras.Model(inputs, dropout(inputs))
        internals.give_seed_generator(dropout)
        dropout.rate = 0.5
        one, other = (np.asarray(model(np.ones((1, 1000)), training=True)) for _ in range(2))
        assert set(one.ravel().tolist()) == {0.0, 2.0} and not np.array_equal(one, other)
        assert any("seed" in v.path for v in model.non_trainable_variables)

    def test_the_graph(self):
        model = small_model()
        graph = internals.graph_of(model)
        nodes = [node for depth in internals.nodes_by_depth(graph).values() for node in depth]
        assert {node.operation.name for node in nodes} >= {"inner"}
        assert internals.inputs_struct(graph) is not None
        inside = internals.graph_of(model.get_layer("inner"))
        assert [len(nodes) for nodes in internals.nodes_by_depth(inside).values()] == [1, 1]
        assert internals.graph_of(keras.layers.Dense(1)) is None

    def test_what_a_model_was_compiled_with(self):
        model = small_model()
        model.compile("sgd", "mse", loss_weights=2.0)
        assert internals.compiled_with(model, "loss_weights") == 2.0
        assert internals.compiled_with(model, "weighted_metrics") is None

    def test_the_last_axis_of_a_symbolic_tensor(self):
        tensor = keras.Input((3, 4))
        internals.set_last_axis(tensor, 5)
        assert tensor.shape == (None, 3, 5)

    def test_a_replaced_optimizer_is_saved(self):
        model = small_model()
        model.compile(keras.optimizers.SGD(0.5), "mse")
        internals.set_compiled_optimizer(model, keras.optimizers.SGD(0.25))
        assert float(model.optimizer.learning_rate) == 0.25
        assert model.get_compile_config()["optimizer"]["config"]["learning_rate"] == 0.25

    def test_another_tracker_of_the_loss_is_a_metric_once(self):
        class Doubled(keras.metrics.Mean):
            def update_state(self, values, sample_weight=None):
                super().update_state(2 * values, sample_weight)

        model = small_model()
        model.compile("sgd", "mse")
        rows = np.ones((2, 2)), np.ones((2, 3))
        loss = model.evaluate(*rows, verbose=0)
        internals.set_loss_tracker(model, Doubled(name="loss"))
        model.test_function = None
        assert model.evaluate(*rows, verbose=0) == pytest.approx(2 * loss)
        assert [metric.name for metric in model.metrics].count("loss") == 1

    def test_the_first_epoch_of_a_fit(self):
        seen = []

        class Look(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                seen.append(internals.first_epoch(self.model))

        model = small_model()
        model.compile("sgd", "mse")
        rows = np.ones((2, 2)), np.ones((2, 3))
        model.fit(*rows, initial_epoch=1, epochs=2, verbose=0, callbacks=[Look()])
        assert seen == [0]  # Keras notes it only where a callback has moved it
        internals.sync_state(model)


class TestAddedSublayers:
    def test_a_built_layer_gets_and_loses_a_sublayer(self):
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        inner = keras.layers.Dense(1, name="inner")
        inner.build((None, 3))
        with pytest.raises(ValueError, match="already built"):
            layer.refused = keras.layers.Dense(1)
        internals.add_sublayer(layer, "extra", inner)
        assert internals.sublayers(layer) == [inner] and len(layer.weights) == 4
        with pytest.raises(ValueError, match="already built"):
            layer.refused = keras.layers.Dense(1)
        internals.remove_sublayer(layer, "extra")
        assert internals.sublayers(layer) == [] and len(layer.weights) == 2
        assert not hasattr(layer, "extra")

    def test_variables_in_their_own_dtype(self):
        class Reading(keras.layers.Layer):
            def build(self, shape):
                self.value = self.add_weight(shape=(1,), name="value")

            def call(self, x):
                with internals.full_precision():
                    assert keras.ops.convert_to_tensor(self.value).dtype == "float32"
                assert keras.ops.convert_to_tensor(self.value).dtype == "bfloat16"
                return x

        Reading(dtype="mixed_bfloat16")(np.ones((1, 1), "float32"))


class TestMetrics:
    def test_losses_leave_out_what_a_mask_does(self):
        outputs = keras.ops.convert_to_tensor([[1.0], [5.0], [3.0]])
        assert internals.mask_of(outputs) is None
        internals.set_mask(outputs, keras.ops.convert_to_tensor([True, False, True]))
        assert list(internals.mask_of(outputs)) == [True, False, True]
        targets = np.zeros((3, 1), "float32")
        for reduction, expected in (("sum_over_batch_size", 2.0), ("sum", 4.0)):
            loss = keras.losses.MeanAbsoluteError(reduction=reduction)
            assert float(loss(targets, outputs)) == expected

    def test_the_function_of_a_mean(self):
        metric = keras.metrics.MeanSquaredError()
        assert internals.function_of(metric).__module__.startswith("keras.")

    def test_directions(self):
        metric, other = keras.metrics.Mean(name="m"), keras.metrics.Mean(name="m")
        internals.set_direction(metric, "up")
        internals.copy_direction(other, metric)
        assert other._direction == "up"
        internals.copy_direction(keras.metrics.Sum(), keras.metrics.Sum())


def test_deferred_initialization():
    before, waiting = internals.deferred_variables(), []
    internals.set_deferred_variables(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            variable = keras.Variable(keras.initializers.Ones(), shape=(2,))
    finally:
        internals.set_deferred_variables(before)
    assert waiting == [variable]
    internals.give_value(variable, np.array([1.0, 2.0], "float32"))
    np.testing.assert_array_equal(variable, [1.0, 2.0])


def test_layers_do_not_need_the_shapes_of_masks():
    """Keras 3.10 passes to `build` and `compute_output_shape` no shape of an argument "…_mask"."""
    layers = [value for value in vars(architectures).values() if inspect.isclass(value)] + [
        value for value in vars(heads).values() if inspect.isclass(value)
    ]
    methods = [
        (layer.__name__, name, getattr(layer, name))
        for layer in layers
        if issubclass(layer, keras.layers.Layer)
        for name in ("build", "compute_output_shape")
    ]
    assert len(methods) > 40
    for layer, name, method in methods:
        for parameter in inspect.signature(method).parameters.values():
            if parameter.name.endswith("mask_shape"):
                assert parameter.default is None, f"{layer}.{name}"


class TestReadOnce:
    def test_a_loop_neither_reads_nor_casts_variables(self):
        dense = keras.layers.Dense(3, dtype="mixed_bfloat16")
        dense.build((2, 3))

        def steps(x):
            with internals.ReadOnce():
                return tf.while_loop(
                    lambda x: tf.reduce_sum(x) < 9, lambda x: (dense(x) + 1,), (x,)
                )

        x = tf.ones((2, 3), "bfloat16")
        graph = tf.function(steps).get_concrete_function(x).graph
        (body,) = (name for name in graph._functions if "body" in name)
        inside = {node.op for node in graph._functions[body].cached_definition.node_def}
        assert not inside & {"ReadVariableOp"}
        kernels = [op for op in graph.get_operations() if op.type == "ReadVariableOp"]
        assert len(kernels) == 2

    def test_each_layer_gets_its_own_dtype(self):
        variable = keras.Variable([1.0, 1.001])
        with internals.ReadOnce() as scope:
            assert internals.scope_of_reading() is scope
            assert variable.value.dtype == "float32"
            with keras.src.backend.AutocastScope("bfloat16"):
                assert variable.value.dtype == "bfloat16"
            assert variable.value.dtype == "float32"
        assert internals.scope_of_reading() is None

    def test_a_transpose(self):
        table = keras.Variable(np.arange(6.0).reshape(2, 3))
        with internals.ReadOnce() as scope:
            found = scope.transposed(table, "float32")
            assert scope.transposed(table, "float32") is found
        np.testing.assert_array_equal(found, table.numpy().T)


class TestSeeds:
    def test_the_seed_of_the_user(self):
        keras.utils.set_random_seed(37)
        assert internals.random_seed() == 37

    def test_layers_in_a_pipeline_draw_from_the_given_seeds(self):
        layer = keras.layers.RandomColorJitter(brightness_factor=0.5, contrast_factor=0.5)
        images = np.random.default_rng(0).uniform(0, 255, (2, 6, 6, 3)).astype("float32")
        given = []

        def changed(seed):
            def next_seed():
                given.append(seed)
                return tf.constant([seed, len(given)], "int64")

            def change(batch):
                with internals.seeds_from(next_seed, [keras.Sequential([layer])]):
                    return layer(batch, training=True)

            given.clear()
            (found,) = tf.data.Dataset.from_tensors(images).map(change)
            assert len(given) >= 2  # one for each inner layer
            return found.numpy()

        first = changed(3)
        np.testing.assert_array_equal(changed(3), first)
        assert (changed(4) != first).any()

    def test_the_layers_draw_as_before_afterwards(self):
        layer, other = (keras.layers.RandomFlip(seed=3) for _ in range(2))
        with internals.seeds_from(lambda: tf.constant([1, 2], "int64"), [layer]):
            assert "next" in vars(layer.generator)
        assert vars(layer.generator).keys() == vars(other.generator).keys()
        assert vars(layer).keys() == vars(other).keys()


@pytest.mark.jax
def test_a_step_gets_what_an_optimizer_carries_and_files_do_not():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    rate = keras.Variable(0.5, trainable=False, name="rate")
    model.compile(keras.optimizers.SGD(lambda: rate * 1.0), "mse", jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    alone, carrying = {}, {}
    model.optimizer.save_own_variables(alone)
    internals.carry(model.optimizer, [rate])
    internals.carry(model.optimizer, [rate])
    model.optimizer.save_own_variables(carrying)
    assert alone.keys() == carrying.keys()
    x, y = np.ones((2, 2), "float32"), np.ones(2, "float32")
    before = np.array(model.weights[1].value)
    model.train_on_batch(x, y)
    after = np.array(model.weights[1].value)
    assert (after != before).all()
    rate.assign(0.0)  # takes effect in the step that is traced already
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(np.array(model.weights[1].value), after)
    model.optimizer.load_own_variables(carrying)
    assert int(np.array(model.optimizer.iterations.value)) == 0  # as in the file
    is_on_jax = keras.backend.backend() == "jax"
    assert sum(v is rate for v in model.optimizer.variables) == is_on_jax


class TestRunningGraphs:
    def test_each_call_of_a_layer_is_replaced_on_its_own(self):
        inputs = keras.Input((2,), name="given")
        double = keras.layers.Rescaling(2.0)
        model = keras.Model({"given": inputs}, double(double(inputs)))
        seen = []

        def call_of(node):
            seen.append(node)
            return node.operation if len(seen) == 1 else lambda x: node.operation(x) + 1.0

        values = internals.standardized_inputs(model, {"given": np.ones((1, 2))})
        assert [value.dtype for value in values] == ["float32"]
        assert internals.run_nodes(model, values, call_of).numpy().tolist() == [[5.0, 5.0]]
        assert [node.operation for node in seen] == [double, double]
        assert seen[0] is not seen[1]


@pytest.mark.jax
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras joins batches on JAX only")
def test_arrays_of_several_processes_stay_as_they_are(monkeypatch):
    from keras.src.backend.jax import distribution_lib

    usual = distribution_lib.distribute_data_input
    monkeypatch.setattr(distribution_lib, "distribute_data_input", usual)  # and back
    for _ in range(2):
        internals.keep_global_arrays()
    assert distribution_lib.distribute_data_input.__wrapped__ is usual

    class Global:
        is_fully_addressable = False

    batch, device = Global(), keras.distribution.list_devices()[0]
    mesh = keras.distribution.DeviceMesh((1,), ("rows",), [device])
    layout = keras.distribution.TensorLayout(("rows",), mesh)
    assert distribution_lib.distribute_data_input(batch, layout, "rows") is batch
    placed = distribution_lib.distribute_data_input(np.arange(3), layout, "rows")
    np.testing.assert_array_equal(placed, [0, 1, 2])
