"""Reading an adapter from a folder of PEFT."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.adapters.activity import forget_outputs, require_whole, start_training
from finetune_tf.adapters.adding import check_biases, check_new_name
from finetune_tf.adapters.attaching import adaptable_layers, attach, sizes_of
from finetune_tf.adapters.peft_config import WEIGHTS, PeftConfig, read_config
from finetune_tf.adapters.torch_names import has_torch_names, module_of, tables_to_read
from finetune_tf.base.arguments import shown
from finetune_tf.base.paths import absolute, has_file
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.messages import say
from finetune_tf.training.freezing import strategy_scope
from finetune_tf.weights.files import read_file
from finetune_tf.weights.matching import Source
from finetune_tf.weights.table import Weight
from finetune_tf.weights.tensors import LazyTensor, is_finite, require_equal

BASE = "base_model.model."
# The ends of the names of tensors of adapters, with the attributes of our layers.
_ENDS = {
    ".lora_A.weight": "lora_a",
    ".lora_B.weight": "lora_b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",  # written by the first versions with DoRA
    ".ia3_l": "factors",
}
_UNSUPPORTED = {
    ".lora_B.bias": "a bias of the second matrix",
    ".lora_embedding_A": "an adapter of an embedding table",
    ".lora_embedding_B": "an adapter of an embedding table",
}


@dataclass
class _Content:
    """The tensors of a file, sorted.

    Attributes:
        adapters: The tensors of adapters by module and attribute.
        plain: Tensors of the model itself, such as those of its head, by name.
    """

    adapters: dict[str, dict[str, LazyTensor]] = field(default_factory=dict)
    plain: dict[str, LazyTensor] = field(default_factory=dict)


@names_checked
def load_peft(model: keras.Model, folder: str | Path, name: str = "default") -> None:
    """Loads an adapter that PEFT or `save_peft` has written.

    Supported are LoRA, with rsLoRA, DoRA and patterns of ranks, and IA3. Modules that were saved
    completely, such as a head, replace those of the model; all adapters of a model share them. The
    adapter becomes the only active one, and is trained as after `add`.

    Args:
        model: A model from `ft.load`: the base model of the adapter.
        folder: A folder with adapter_config.json and adapter_model.safetensors.
        name: The name that the adapter gets.

    Raises:
        ArgumentError: If the name is taken or not a valid name, or one of several adapters would
            train biases of the model, which all of them share.
        CheckpointError: If the folder is incomplete or damaged, uses something that is not
            supported, or belongs to another base model. The model is then unchanged.
        ModelError: If the model does not come from `ft.load`.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA(rank=4))
        >>> folder = ft.adapters.save_peft(model, "my-adapter")
        >>> again = ft.load(checkpoint, labels=train.labels)
        >>> ft.adapters.load_peft(again, folder)
        >>> inputs = {"input_ids": np.array([[2, 5, 3]])}
        >>> np.allclose(again(inputs), model(inputs), atol=1e-6)
        True
    """
    require_whole(model)
    require_names(model)
    check_new_name(model, name)
    folder = absolute(folder)
    config = read_config(folder)
    check_biases(model, config.options.get("bias", "none"))
    file = next((folder / each for each in WEIGHTS if has_file(folder / each)), None)
    if file is None:
        raise CheckpointError(f"There is neither {' nor '.join(WEIGHTS)} in {folder}.")
    content = _sorted(read_file(file).values(), file)
    tables = tables_to_read(model)
    found = _adapters(model, content, config, tables, file)
    values = _plain_values(model, content.plain, tables, config, file)
    with strategy_scope(model):
        for layer, settings, arrays in found:
            adapter = attach(layer, name, config.kind, settings)
            for attribute, array in arrays.items():
                getattr(adapter, attribute).assign(array)
    for variable, value in values:
        variable.assign(value)
    learning = start_training(model, name, [variable for variable, _ in values])
    forget_outputs(model)
    modules = list(dict.fromkeys(map(module_of, content.plain)))
    with_ = f", and {', '.join(modules[:4])}" if modules else ", and no head"
    say(
        f"Loaded the {config.kind} adapter {name!r} from {folder}: {len(found)} layers{with_}. "
        f"{learning}"
    )
    known = model.info.checkpoint
    if config.base and Path(config.base).name != Path(known).name:
        say(
            f"The adapter was made for {config.base!r}; this model is {known!r}. Its results are "
            "only right if both have the same weights."
        )


def require_names(model: Any) -> None:
    """Raises a ModelError if the variables of a model have no names in PyTorch."""
    if not has_torch_names(model):
        raise ModelError(
            f"{model.name!r} does not come from ft.load, so its layers have no names in PyTorch "
            "and PEFT has no format for its adapters. Save its weights with model.save_weights."
        )


def _sorted(tensors: Iterable[LazyTensor], file: Path) -> _Content:
    """Sorts the tensors of a file by what they belong to.

    Raises:
        CheckpointError: If a name is unknown.
    """
    content = _Content()
    for tensor in tensors:
        tensor.require_floats()
        name = tensor.name
        if not name.startswith(BASE):
            raise CheckpointError(
                f"The tensor {name} of {file} does not begin with {BASE!r}, as all names of PEFT "
                "do. Save the adapter with PEFT's save_pretrained."
            )
        name = name.removeprefix(BASE)
        for end, what in _UNSUPPORTED.items():
            if name.endswith(end):
                raise CheckpointError(
                    f"The tensor {tensor} is {what}, which is not supported. Merge the adapter "
                    "with PEFT (merge_and_unload), save the model, and load that with ft.load."
                )
        end = next((each for each in _ENDS if name.endswith(each)), None)
        if end is not None:
            content.adapters.setdefault(name.removesuffix(end), {})[_ENDS[end]] = tensor
        elif ".original_module." not in name:  # PEFT's copy of a module that was trained
            name = name.replace(".modules_to_save.", ".").replace(".base_layer.bias", ".bias")
            require_equal(content.plain.setdefault(name, tensor), tensor, name)
    return content


def _adapters(
    model: Any, content: _Content, config: PeftConfig, tables: list[list[Weight]], file: Path
) -> list[tuple[keras.layers.Layer, dict[str, Any], dict[str, np.ndarray]]]:
    """Returns the adapted layers with settings and values.

    Raises:
        CheckpointError: If the tensors do not fit the model or the config.
    """
    kernels = {layer.kernel.path: layer for layer in adaptable_layers(model)}
    layers: dict[str, keras.layers.Layer] = {}
    for row in (row for table in tables for row in table):
        if len(row.tensors) == len(row.variables) == 1 and row.variables[0] in kernels:
            layers.setdefault(module_of(row.tensors[0]), kernels[row.variables[0]])
    if not content.adapters:
        raise CheckpointError(f"{file} contains no tensors of an adapter.")
    found = []
    for module, tensors in content.adapters.items():
        if module not in layers:
            known = list(layers)
            raise CheckpointError(
                f"The adapter in {file} is for another base model{_of(config)}: it has tensors for "
                f"the module {module}, which {model.info.checkpoint} does not have. Modules that "
                f"can be adapted are, for example, {', '.join(known[:3])}."
            )
        layer = layers[module]
        sizes, shapes = sizes_of(layer), {key: tensor.shape for key, tensor in tensors.items()}
        settings = _settings(module, shapes, sizes, config, file)
        arrays = {key: np.asarray(t.read(), dtype="float32") for key, t in tensors.items()}
        for key, array in arrays.items():
            if not is_finite(array):
                raise CheckpointError(f"The tensor {tensors[key]} contains NaN or infinity.")
            arrays[key] = array.T if key.startswith("lora") else array.reshape(-1)
        if any(layer is other for other, *_ in found):
            raise CheckpointError(f"{file} contains two adapters for the module {module}.")
        found.append((layer, settings, arrays))
    return found


def _settings(
    module: str, shapes: dict[str, tuple], sizes: tuple[int, int], config: PeftConfig, file: Path
) -> dict[str, Any]:
    """Returns the settings of one adapter, after a check of the shapes of its tensors."""
    inputs, units = sizes
    if config.kind == "IA3":
        expected = {"factors": ((units, 1), (1, inputs))}
        settings = {"on_input": shapes.get("factors") != (units, 1)}
    else:
        rank = shapes.get("lora_a", (0,))[0]
        expected = {"lora_a": ((rank, inputs),), "lora_b": ((units, rank),)}
        if config.options["use_dora"]:
            expected["magnitude"] = ((units,), (1, units))
        settings = None
    if shapes.keys() != expected.keys():
        raise CheckpointError(
            f"The adapter of {module} in {file} consists of {', '.join(sorted(shapes))}, but its "
            f"config requires {', '.join(sorted(expected))}. The files do not belong together."
        )
    for key, shape in shapes.items():
        if shape not in expected[key]:
            raise CheckpointError(
                f"The adapter in {file} is for another base model{_of(config)}: {key} of {module} "
                f"has the shape {shape}, but a module with {inputs} inputs and {units} outputs "
                f"needs {' or '.join(map(str, expected[key]))}."
            )
    return config.settings_for(module, rank, str(file)) if settings is None else settings


def _plain_values(
    model: Any,
    plain: dict[str, LazyTensor],
    tables: list[list[Weight]],
    config: PeftConfig,
    file: Path,
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Returns the values of the model's own variables that the file contains.

    Raises:
        CheckpointError: If a tensor belongs to no variable, or has another shape.
    """
    variables = {variable.path: variable for variable in model.weights}
    values: dict[str, np.ndarray] = {}
    left = dict(plain)
    for row in (row for table in tables for row in table):
        if not row.is_in(plain) or not all(p in variables for p in row.stored_variables):
            continue
        source = Source(row, tuple(plain[name] for name in row.tensors))
        if mismatch := source.shape_mismatch(variables):
            tensor, expected = mismatch
            raise CheckpointError(
                f"The tensor {tensor} has the shape {tensor.shape}, but the model requires "
                f"{expected}. The adapter is for another base model{_of(config)} or for other "
                "labels: load the model with the labels of the adapter."
            )
        for path, array in source.values().items():
            if not is_finite(array):
                raise CheckpointError(f"The tensor {source} contains NaN or infinity.")
            other = values.get(path, variables[path] if not row.variables else array)
            if not np.array_equal(np.asarray(other, "float32"), array):
                raise CheckpointError(
                    f"The tensor {source} is a changed copy of a matrix that the model uses in two "
                    "places, so the two would differ. Train the adapter without saving this module."
                )
            if row.variables:
                values[path] = array
        for name in row.tensors:
            left.pop(name, None)
    if left:
        raise CheckpointError(
            f"The adapter in {file} is for another base model{_of(config)}: the model has no place "
            f"for its tensors {shown(sorted(left)[:3], 300)}."
        )
    return [(variables[path], array) for path, array in values.items()]


def _of(config: PeftConfig) -> str:
    return f" ({config.base})" if config.base else ""
