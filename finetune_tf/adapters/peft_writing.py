"""Writing an adapter as a folder of PEFT."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf.adapters.activity import require_known, require_whole
from finetune_tf.adapters.attaching import adapted_layers
from finetune_tf.adapters.choosing import head_variables, is_bias
from finetune_tf.adapters.layers import Adapter
from finetune_tf.adapters.peft_config import CONFIG, TASK_TYPES, WEIGHTS, target_modules
from finetune_tf.adapters.peft_reading import BASE, require_names
from finetune_tf.adapters.torch_names import (
    class_name_of,
    complete_table,
    head_table,
    is_bare,
    is_divided,
    module_names,
    module_of,
)
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.json_files import write_json
from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.messages import say
from finetune_tf.tasks.decisions import THRESHOLDS
from finetune_tf.weights.conversions import IDENTITY
from finetune_tf.weights.table import Weight


@names_checked
def save_peft(model: keras.Model, folder: str | Path, name: str = "default") -> Path:
    """Writes an adapter as a folder of PEFT, together with the trained head.

    PEFT opens the folder on the same base model: `PeftModel.from_pretrained(base, folder)`. It
    contains the adapter, the biases that its option `bias` names, the head of a model with labels,
    and every other module whose weights are trainable at the moment. Other weights that were
    trained and then frozen are not contained, nor is the config of the model; a message says if its
    predictions depend on them.

    Args:
        model: A model from `ft.load` with adapters.
        folder: The folder, created or replaced atomically. Other files in it are kept.
        name: The name of the adapter. The folder does not contain the name.

    Returns:
        The absolute path of the folder.

    Raises:
        ArgumentError: If there is no adapter of the name.
        CheckpointError: If the folder cannot be written.
        ModelError: If PEFT has no format for the adapter or for a variable that is trained.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA(rank=4))
        >>> folder = ft.adapters.save_peft(model, "my-adapter")
        >>> sorted(path.name for path in folder.iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    from safetensors.numpy import save_file

    model = getattr(model, "whole", model)  # of the upper part that trains on cached features
    require_whole(model)
    require_known(model, name)
    require_names(model)
    modules, found = module_names(model), adapted_layers(model, name)
    for layer, adapter in found:
        if adapter.kind == "Bottleneck":
            raise ModelError(
                f"The adapter {name!r} is a bottleneck, for which PEFT has no format. Save the "
                "model with model.save('model.keras')."
            )
        if layer.kernel.path not in modules:
            raise ModelError(
                f"The layer of {layer.kernel.path} has no name in PyTorch, so its adapter cannot "
                "be saved for PEFT. Save the model with model.save('model.keras')."
            )
        if is_divided(model, modules[layer.kernel.path]):
            raise ModelError(
                f"The layer of {layer.kernel.path} is several modules in transformers' class for "
                f"{model.config['model_type']}, so PEFT could not open its adapter. Save the model "
                "with model.save('model.keras') or save_pretrained."
            )
    named = [(modules[layer.kernel.path], layer, adapter) for layer, adapter in found]
    table = complete_table(model)
    plain, biases = _plain_tensors(model, table, {module for module, *_ in named}, found[0][1])
    contained = {*plain, *(key.replace(".base_layer.", ".") for key in biases)}
    tensors = {f"{BASE}{key}": array for key, array in (plain | biases).items()}
    for module, _, adapter in named:
        for key, array in _adapter_tensors(adapter).items():
            tensors[f"{BASE}{module}.{key}"] = array
    saved_modules = sorted(set(map(module_of, plain)))
    unknown = {module_of(name) for row in head_table(model) for name in row.tensors}
    unknown = unknown & set(saved_modules) if is_bare(model) else set()
    config = _config(model, named, table, [m for m in saved_modules if m not in unknown])
    folder = absolute(folder)
    with unfinished_folder(folder, (CONFIG, *WEIGHTS)) as unfinished:
        write_json(unfinished / CONFIG, config)
        contiguous = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
        save_file(contiguous, unfinished / WEIGHTS[0], {"format": "pt"})
    with_ = f" with {', '.join(saved_modules)}" if saved_modules else ""
    size = sum(array.nbytes for array in tensors.values())
    without = f" without {', '.join(sorted(unknown))}" if unknown else ""
    say(
        f"Saved the adapter {name!r}{with_} to {folder} ({size / 1e6:.3g} MB); opens in "
        f"peft{without}."
    )
    _say_what_is_missing(model, table, contained)
    return folder


def _say_what_is_missing(model: Any, table: list[Weight], contained: set[str]) -> None:
    """Says what the predictions of a model depend on, and neither its base nor the folder has.

    Args:
        model: The model.
        table: Its variables and their names in PyTorch.
        contained: The names in PyTorch of the tensors of the model itself in the folder.
    """
    record, config = model.info.record, model.config
    saved = {p for row in table if contained.issuperset(row.tensors) for p in row.variables}
    changed = [path for path in record.get("changed", ()) if path not in saved]
    if changed or "weights" in record:
        what = f" ({len(changed)} variables, such as {changed[0]})" if changed else ""
        say(
            "The adapter belongs to the weights below it that the model has now. They are no "
            f"longer those of {model.info.checkpoint!r}{what}, on which it would compute something "
            "else. Save them as its base: ft.adapters.switch(model, None), then "
            "model.save_pretrained('base')."
        )
    found = {
        "thresholds": config.get(THRESHOLDS),
        "the prefix of texts": model.task.prompt_prefix(config),
    }
    if lacking := [f"{name} ({value!r})" for name, value in found.items() if value]:
        say(
            f"A folder of PEFT has no config of the model, and so not {' and '.join(lacking)}, "
            "which the model has to get again after ft.adapters.load_peft."
        )


def _adapter_tensors(adapter: Adapter) -> dict[str, np.ndarray]:
    """Returns the tensors of one adapter by the ends of their names."""
    if adapter.kind == "IA3":
        factors = _values(adapter.factors)
        return {"ia3_l": factors[None] if adapter.on_input else factors[:, None]}
    tensors = {
        "lora_A.weight": _values(adapter.lora_a).T,
        "lora_B.weight": _values(adapter.lora_b).T,
    }
    if adapter.magnitude is not None:
        tensors["lora_magnitude_vector"] = _values(adapter.magnitude)
    return tensors


def _values(variable: keras.Variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))


def _plain_tensors(
    model: Any, table: list[Weight], adapted: set[str], adapter: Adapter
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns tensors of the model itself: those of modules that are saved completely, and biases.

    Raises:
        ModelError: If a trainable variable has no place in PEFT's format.
    """
    mode = adapter.settings.get("bias", "none")
    own = {id(v) for _, each in adapted_layers(model) for v in each.weights}
    head = {id(variable) for variable in head_variables(model)}
    variables = {v.path: v for v in model.weights if id(v) not in own}
    tied = {row.tied_to for row in table if row.tied_to}
    rows = {path: row for row in reversed(table) for path in row.variables}
    names = {module_of(name) for row in table for name in row.tensors}
    whole: set[str] = set()
    biases: dict[str, np.ndarray] = {}
    for variable in learnable_variables(model):
        path = variable.path
        modules = {module_of(name) for name in rows[path].tensors} if path in rows else set()
        in_adapted = not modules.isdisjoint(adapted)
        is_wanted = mode == "all" or (mode == "lora_only" and in_adapted)
        # Biases belong to the adapter by its option, also while they are frozen.
        is_wanted = is_wanted and id(variable) not in head and is_bias(path)
        is_saved = variable.trainable or id(variable) in head or is_wanted
        if id(variable) in own or not is_saved:
            continue
        if is_wanted:
            for key, array in _converted(rows[path], variables).items():
                inside = in_adapted and key.endswith(".bias")
                biases[f"{module_of(key)}.base_layer.bias" if inside else key] = array
            continue
        is_leaf = not any(other.startswith(f"{module}.") for module in modules for other in names)
        if in_adapted or not modules or path in tied or not is_leaf:
            raise ModelError(
                f"The variable {path} is trained besides the adapter, for which PEFT's format has "
                "no place. Freeze it, train biases with ft.adapters.LoRA(bias='lora_only'), or "
                "save the complete model with save_pretrained."
            )
        whole |= modules
    complete = {
        name: array
        for row in dict.fromkeys(rows.values())
        if {module_of(name) for name in row.tensors} & whole
        and all(path in variables for path in row.variables)
        for name, array in _converted(row, variables).items()
    }
    return complete, biases


def _converted(row: Weight, variables: dict[str, keras.Variable]) -> dict[str, np.ndarray]:
    values = [_values(variables[path]) for path in row.variables]
    return dict(zip(row.tensors, row.conversion.save(values), strict=True))


def _task_type(model: Any) -> str | None:
    is_encoder = class_name_of(model).endswith("MaskedLM")  # even if it writes texts
    return None if is_encoder else TASK_TYPES.get(model.task.class_suffix)


def _config(
    model: Any, named: list[tuple], table: list[Weight], saved_modules: list[str]
) -> dict[str, Any]:
    """Returns the content of adapter_config.json."""
    targets = [module for module, *_ in named]
    every = {module_of(name) for row in table for name in row.tensors}
    others = every - {*targets, *saved_modules}
    ends, blocks = target_modules(targets, others)
    kernels = {row.variables[0]: row for row in table if row.variables}
    transposed = [kernels[layer.kernel.path].conversion is IDENTITY for _, layer, _ in named]
    config = {
        "base_model_name_or_path": model.info.checkpoint,
        "fan_in_fan_out": all(transposed),  # the layout of GPT-2's kernels
        "inference_mode": True,
        "modules_to_save": saved_modules or None,
        "peft_type": named[0][2].kind.upper(),
        "target_modules": ends,
        "task_type": _task_type(model),
    }
    if named[0][2].kind == "IA3":
        forward, rest = (
            [module for module, _, adapter in named if adapter.on_input == on_input]
            for on_input in (True, False)
        )
        if blocks is None:  # IA3 has no layers_to_transform
            forward, rest = (
                target_modules(m, every - {*m, *saved_modules})[0] for m in (forward, rest)
            )
        names = {"feedforward_modules": forward, "target_modules": [*rest, *forward]}
        return config | names | {"init_ia3_weights": True}
    settings = [adapter.settings for *_, adapter in named]
    rank, alpha = (
        Counter(s[key] for s in settings).most_common(1)[0][0] for key in ("rank", "alpha")
    )
    pairs = list(zip(targets, settings, strict=True))
    first = settings[0]
    return config | {
        "alpha_pattern": {m: s["alpha"] for m, s in pairs if s["alpha"] != alpha},
        "bias": first["bias"],
        "init_lora_weights": True,
        "layers_to_transform": blocks,
        "lora_alpha": alpha,
        "lora_dropout": first["dropout"],
        "r": rank,
        "rank_pattern": {m: s["rank"] for m, s in pairs if s["rank"] != rank},
        "use_dora": first["use_dora"],
        "use_rslora": first["use_rslora"],
    }
