"""Checks that every family and every task has to pass.

A case is a checkpoint folder, its task, and the results of PyTorch for it: stored by
`references/make_bert.py` and `references/make_families.py`, or computed during the test by
`references/pytorch.py`. Each `check_…` function checks one property and raises AssertionError.
"""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from helpers_checkpoints import DECODER_INPUTS, INPUTS, table_of
from keras import ops

import finetune_tf as ft
from finetune_tf.checkpoints import open_checkpoint
from finetune_tf.families import FAMILIES
from finetune_tf.graph.splitting import split_model
from finetune_tf.messages import quiet
from finetune_tf.tasks import IGNORED, TASKS
from finetune_tf.training import AdamW
from finetune_tf.training.freezing import apply_frozen

TESTS = Path(__file__).resolve().parents[1]
REFERENCES = TESTS / "references"
LOGITS = 1e-5  # largest difference of logits in float32
GRADIENTS = 1e-4  # norm of the difference over the norm of PyTorch's gradient
LOSSES = 1e-3  # largest difference of the losses of a training run
# Softmax cancels some gradients, for example that of the bias of the keys. Only rounding errors are
# left of them on both sides, so their error is relative to the largest gradient.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Case:
    """A checkpoint and the results of PyTorch for it."""

    folder: Path
    task: str
    expected: dict[str, np.ndarray]

    @classmethod
    def stored(cls, name: str, task: str) -> "Case":
        """Reads the case in `references/NAME`."""
        with np.load(REFERENCES / name / "expected.npz") as arrays:
            return cls(REFERENCES / name, task, dict(arrays))

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs of the model."""
        names = (*INPUTS, *DECODER_INPUTS, "pixel_values")
        return {name: self.expected[name] for name in names if name in self.expected}

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.inputs.values())))

    @property
    def real(self) -> np.ndarray:
        """True where a token that the outputs belong to is not padding, (batch, length)."""
        masks = ("decoder_attention_mask", "attention_mask")
        return next(self.expected[name] for name in masks if name in self.expected) == 1

    def load(self, **options) -> keras.Model:
        """Loads the model in finetune_tf, without dropout."""
        with quiet():
            options = {"dropout": 0.0, **options}
            if self.task == "feature-extraction":
                options = {"pooling": "mean", **options}
            return ft.load(self.folder, self.task, **options)


def comparable(model: keras.Model) -> keras.Model:
    """Returns the model, or a model of the hidden states if it returns one vector per text."""
    if model.task.name != "feature-extraction":
        return model
    return keras.Model(model.inputs, model.get_layer("pooling").input[0])


def outputs(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the logits, or the last hidden state of a model without a head, without dropout."""
    full = model._complete_inputs(inputs)
    compared = comparable(model)
    model_inputs = {tensor.name: full[tensor.name] for tensor in model.inputs}
    return np.asarray(compared(model_inputs if compared is model else list(model_inputs.values())))


def close(found: np.ndarray, expected: np.ndarray, largest: float = 1.0) -> None:
    """Asserts closeness, absolute below 1 and relative above, since logits can have any size.

    Args:
        found: The outputs.
        expected: Those of PyTorch.
        largest: The number to which the absolute error is relative, if it is above 1.
    """
    absolute = LOGITS * max(largest, 1.0)
    np.testing.assert_allclose(found, expected, rtol=LOGITS, atol=absolute)


def check_logits(model: keras.Model, case: Case) -> None:
    """Checks the forward pass including padding, with all inputs and with input ids only."""
    # T5 does not scale attention scores, so that rounding errors of both sides (each up to 2e-5
    # from float64 for logits up to 4) are relative to the largest logit.
    is_scaled = case.task != "text2text-generation"
    largest = 1.0 if is_scaled else float(np.abs(case.expected["logits"]).max())
    close(outputs(model, case.inputs), case.expected["logits"], largest)
    required = ("input_ids", "decoder_input_ids", "pixel_values")
    ids = {name: array for name, array in case.inputs.items() if name in required}
    close(outputs(model, ids), case.expected["logits_ids_only"], largest)


def check_report(case: Case, capsys) -> None:
    """Checks that loading uses every tensor of the checkpoint and fills every variable."""
    options = {"pooling": "mean"} if case.task == "feature-extraction" else {}
    ft.load(case.folder, case.task, **options)
    report = capsys.readouterr().out
    model = case.load()
    # Sinusoidal positions have their values already; some releases leave them out of the file.
    known = () if case.task != "text2text-generation" else known_values(model, case)
    filled = [v for v in model.weights if "seed_generator" not in v.path and v.path not in known]
    filled = len(filled)
    assert f"{filled} of {filled} variables filled" in report, report
    assert "; new:" not in report, report
    # Mean pooling does not use the pooler of the family.
    assert report.count("unused:") == int(case.task == "feature-extraction" and "pooler" in report)


def known_values(model: keras.Model, case: Case) -> set[str]:
    """Returns the paths of variables that the file may lack, and does lack."""
    rows, tensors = table_of(model), open_checkpoint(case.folder).tensors
    prefix = f"{FAMILIES[model.config['model_type']].tensor_prefix}."
    return {
        path
        for path, row in rows.items()
        if row.optional and not any(name.removeprefix(prefix) in tensors for name in row.tensors)
    }


def gradient_errors(model: keras.Model, case: Case) -> dict[str, float]:
    """Returns relative errors of gradients by the name of the variable in PyTorch."""
    import tensorflow as tf

    loss = loss_of(model)
    with tf.GradientTape() as tape:
        value = loss(case.expected.get("labels"), model(case.inputs, training=True))
    gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
    rows = table_of(model)
    torch_gradients = {k[9:]: v for k, v in case.expected.items() if k.startswith("gradient/")}
    largest = max(np.linalg.norm(gradient) for gradient in torch_gradients.values())
    errors = {}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        row = rows[variable.path]
        (tensor,) = row.tensors
        name = tensor if tensor in torch_gradients else tensor.partition(".")[2]
        if name not in torch_gradients:
            # PyTorch has no gradient, because the loss does not depend on the variable.
            assert gradient is None or np.linalg.norm(gradient) <= ROUNDING * largest, tensor
            continue
        expected = torch_gradients.pop(name)
        found = np.asarray(tf.convert_to_tensor(gradient))
        (found,) = row.conversion.save([found])
        difference = np.linalg.norm(found - expected)
        norm = np.linalg.norm(expected)
        errors[name] = float(difference / (norm if norm > ROUNDING * largest else largest))
    assert not torch_gradients, (
        f"gradients of variables that do not exist here: {sorted(torch_gradients)}"
    )
    return errors


def check_gradients(model: keras.Model, case: Case) -> None:
    """Checks the backward pass."""
    errors = gradient_errors(model, case)
    worst = max(errors, key=errors.get)
    assert errors[worst] < GRADIENTS, f"{worst}: {errors[worst]}"


def check_rounded_gradients(model: keras.Model, case: Case) -> None:
    """Checks that gradients are PyTorch's in float32, or else with both sides in float64.

    Where the input of a ReLU is almost 0, rounding decides between two gradients; one such input of
    1e-7 changed a small gradient of PyTorch in float32 by 3e-4. The case has the gradients of
    float64 under "float64/gradient/NAME".
    """
    try:
        check_gradients(model, case)
    except AssertionError:
        exact = {
            name.removeprefix("float64/"): gradient
            for name, gradient in case.expected.items()
            if name.startswith("float64/")
        }
        wide = Case(case.folder, case.task, case.expected | exact)
        check_gradients(wide.load(dtype="float64"), wide)


def loss_of(model: keras.Model):
    """Returns the loss of the task; for a model without a head that of `references/pytorch.py`."""
    if model.task.output_kind == "vectors":
        return lambda _, vectors: ops.mean(ops.square(vectors))
    return ft.presets.PRESETS[model.task.output_kind]()["loss"]


def check_training(model: keras.Model, case: Case, run_eagerly: bool = False) -> None:
    """Repeats the AdamW steps of PyTorch and checks the losses. Afterwards the model is trained."""
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A learning rate of 0.001 usually ruins")
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        optimizer = AdamW(1e-3, weight_decay=0.01)
        model.compile(optimizer, loss=loss_of(model), run_eagerly=run_eagerly)
        targets = case.expected.get("labels")
        if targets is None:
            targets = np.zeros(case.rows)
        fit = model.fit(
            case.inputs,
            targets,
            batch_size=case.rows,
            epochs=len(case.expected["losses"]),
            verbose=0,
        )
    np.testing.assert_allclose(
        fit.history["loss"], case.expected["losses"], rtol=LOSSES, atol=LOSSES
    )


def check_padding(model: keras.Model, case: Case) -> None:
    """Checks that the output of a sequence does not depend on the amount of padding after it."""
    padded = dict(case.inputs)
    for name, array in case.inputs.items():
        if name == "pixel_values":
            continue
        free_positions = model._max_positions - array.shape[1]
        fill = model.config.get("pad_token_id") or 0 if name.endswith("input_ids") else 0
        padded[name] = np.pad(array, ((0, 0), (0, min(free_positions, 6))), constant_values=fill)
    expected = outputs(model, case.inputs)
    found = outputs(model, padded)
    if (axis := token_axis(case)) is not None:
        found = np.take(found, range(case.real.shape[1]), axis)
    close(of_real_tokens(found, case), of_real_tokens(expected, case))


def check_batch(model: keras.Model, case: Case) -> None:
    """Checks that the output of a sequence does not depend on the rest of the batch."""
    full = outputs(model, case.inputs)
    for row in range(len(full)):
        alone = {name: array[row : row + 1] for name, array in case.inputs.items()}
        close(outputs(model, alone)[0], full[row])
    reversed_batch = outputs(model, {name: array[::-1] for name, array in case.inputs.items()})
    close(reversed_batch[::-1], full)


def token_axis(case: Case) -> int | None:
    """Returns the axis of the result of `outputs` that runs over tokens; None if there is none."""
    if case.task == "feature-extraction":
        return 1  # `outputs` returns the hidden states
    axis = TASKS[case.task].token_axis
    return None if axis is None else axis + 1


def of_real_tokens(found: np.ndarray, case: Case) -> np.ndarray:
    """Sets the outputs of padding to 0."""
    if (axis := token_axis(case)) is None:
        return found
    real = case.real[:, None, :] if axis == 2 else case.real[:, :, None]
    return np.where(real, found, 0.0)


def check_bfloat16(case: Case) -> None:
    """Checks that bfloat16 is close to float32, with logits and variables in float32."""
    model, wide = case.load(dtype="mixed_bfloat16"), case.load()
    assert model.stages[0].layers[0].compute_dtype == "bfloat16"
    assert {v.dtype for v in model.weights if "seed" not in v.path} == {"float32"}
    found = model(case.inputs)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    expected = np.asarray(wide(case.inputs))
    # bfloat16 has 8 bits of precision, so one rounding has an error of up to 0.4 % of the summands.
    scale = np.abs(expected).max()
    found, expected = (of_real_rows(np.asarray(x), case) for x in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * max(scale, 1.0))


def of_real_rows(found: np.ndarray, case: Case) -> np.ndarray:
    """Does the same as `of_real_tokens`, but returns vectors of texts unchanged."""
    return found if case.task == "feature-extraction" else of_real_tokens(found, case)


def check_compiled(case: Case) -> None:
    """Checks the whole model as one XLA-compiled graph with fixed shapes."""
    model = case.load()
    with quiet():
        model.compile(loss=loss_of(model), jit_compile=True)
    found = model.predict(case.inputs, verbose=0)
    close(found, np.asarray(model(case.inputs)))


def check_keras_file(model: keras.Model, case: Case, folder: Path) -> None:
    """Checks that a `.keras` file restores the model, including labels and stages."""
    model.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(case.inputs)), np.asarray(model(case.inputs)))
    assert again.labels == model.labels
    assert [(s.name, s.role) for s in again.stages] == [(s.name, s.role) for s in model.stages]
    assert [v.path for v in again.variables] == [v.path for v in model.variables]


def check_saved(model: keras.Model, case: Case, folder: Path) -> Path:
    """Checks that a saved folder can be loaded again, and returns it."""
    with quiet():
        saved = model.save_pretrained(folder / "saved")
        again = ft.load(saved, case.task, dropout=0.0)
    np.testing.assert_array_equal(np.asarray(again(case.inputs)), np.asarray(model(case.inputs)))
    return saved


def check_opens_in_pytorch(saved: Path, case: Case, family: str) -> None:
    """Checks that PyTorch loads a saved folder, finds all tensors, and computes the same logits."""
    import torch
    from references.pytorch import FAMILIES as TORCH_FAMILIES
    from references.pytorch import _logits, for_task

    kind = TORCH_FAMILIES[family].models[case.task]
    model, report = kind.from_pretrained(
        saved, attn_implementation="eager", output_loading_info=True
    )
    source = open_checkpoint(saved)
    # The weight table omits buffers that PyTorch creates and does not read.
    table = source.family.weights(source.config)
    unread = {name for row in table if not row.variables for name in row.tensors}
    missing = {
        name
        for name in report["missing_keys"]
        if "pooler" not in name and name.removeprefix(f"{kind.base_model_prefix}.") not in unread
    }
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"], report
    tensors = {name: torch.from_numpy(array).long() for name, array in case.inputs.items()}
    model = for_task(model.eval(), case.task)
    close(_logits(model, case.task, tensors), case.expected["logits"])


def check_stages(model: keras.Model) -> None:
    """Checks the order of stages, and that each trainable variable is in exactly one stage."""
    assert model.stages[0].name.endswith("embeddings") and model.stages[0].role == "embeddings"
    chains = dict.fromkeys(stage.chain for stage in model.stages if stage.role == "block")
    for chain in chains:
        blocks = [s.name for s in model.stages if s.role == "block" and s.chain == chain]
        prefix = f"{chain}/" if chain else ""
        assert blocks == [f"{prefix}block_{i}" for i in range(len(blocks))]
    assert list(chains) in ([""], ["encoder", "decoder"], ["image", "text"])
    variables = [id(v) for stage in model.stages for v in stage.variables]
    assert len(variables) == len(set(variables))
    assert set(variables) == {id(v) for v in model.trainable_variables}


def check_splits(model: keras.Model, case: Case) -> None:
    """Checks that the model computes the same when it is split between any two stages."""
    expected = np.asarray(model(case.inputs))
    inputs = {name: ops.convert_to_tensor(array) for name, array in case.inputs.items()}
    inputs = model._complete_inputs(inputs)
    stages = model.stages
    with quiet():
        for i in range(1, len(stages)):
            below = {id(v) for stage in stages[:i] for v in stage.variables}
            apply_frozen(model, below)
            split = split_model(model)
            assert not split.trunk.trainable_variables
            upper = keras.Model(split.inputs, split.outputs)
            stored = split.trunk(inputs)
            # Positions are recomputed. Of each chain, one tensor is stored.
            chains = {stage.chain for stage in stages if stage.role == "block"}
            assert 1 <= len(stored) <= len(chains)
            available = {**stored, **inputs}
            found = upper({name: available[name] for name in split.inputs})
            np.testing.assert_array_equal(np.asarray(found), expected)
        apply_frozen(model, set())


def unsupported(family: str) -> list[tuple[str, object]]:
    """Returns an unsupported value for each config key with a limited set of values."""
    return [(key, "something else") for key in FAMILIES[family].supported]


__all__ = [name for name in dir() if name.startswith("check_")] + ["IGNORED", "Case"]


def check_on_jax(script: str, cases: list) -> None:
    """Runs a script in a process whose backend is JAX.

    Args:
        script: Reads the cases as JSON from its argument, checks each, and prints the backend and
            the number of cases.
        cases: The cases, as values that JSON can represent.
    """
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    run = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"jax {len(cases)}"
