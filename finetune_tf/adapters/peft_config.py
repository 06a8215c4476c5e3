"""The file adapter_config.json of PEFT: what is read of it, and what is written."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_tf.adapters.patterns import value_for
from finetune_tf.base.arguments import shown
from finetune_tf.base.json_files import member, read_json
from finetune_tf.base.paths import has_file
from finetune_tf.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

#: PEFT's types of tasks by the suffix of PyTorch's classes. Other models have the type null.
TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "Model": "FEATURE_EXTRACTION",
}

# Keys that change nothing here: the tensors show which modules are adapted, and the others describe
# the initialization, the base model or the software.
_WITHOUT_EFFECT = {
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "corda_config": None,
    "ensure_weight_tying": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": None,
    "feedforward_modules": None,
    "inference_mode": None,
    "init_ia3_weights": None,
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", None),
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": None,
    "megatron_config": None,
    "megatron_core": None,
    "modules_to_save": None,
    "peft_version": None,
    "qalora_group_size": None,
    "revision": None,
    "target_modules": None,
    "task_type": None,
}
_READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "bias"}
_READ |= {"rank_pattern", "alpha_pattern"}
_RESET = "initialized from the weights of the base model, which it also changes"


@dataclass(frozen=True)
class PeftConfig:
    """What the reader needs of adapter_config.json.

    Attributes:
        kind: "LoRA" or "IA3".
        base: The base model that the adapter was made for; may be empty.
        rank: The rank of modules without a pattern.
        alpha: The alpha of modules without a pattern.
        rank_pattern: Ranks by regular expressions.
        alpha_pattern: Alphas by regular expressions.
        options: The other settings of `layers.LowRank`.
    """

    kind: str
    base: str
    rank: int = 8
    alpha: float = 8
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings_for(self, module: str, rank: int, where: str) -> dict[str, Any]:
        """Returns the settings of the adapter of a module.

        Args:
            module: The name of the module in the file.
            rank: The rank that its tensors have.
            where: The file, for messages.

        Raises:
            CheckpointError: If the tensors have another rank than the config specifies.
        """
        # PEFT sorts the patterns when it writes them, so the first one may not be the one it used.
        ranks = {
            value_for({key: r}, [module], module, None) for key, r in self.rank_pattern.items()
        }
        if rank not in (ranks - {None} or {self.rank}):
            expected = value_for(self.rank_pattern, [module], module, self.rank)
            raise CheckpointError(
                f"The tensors of {module} in {where} have the rank {rank}, but {CONFIG} specifies "
                f"{expected}. The two files do not belong together."
            )
        alpha = value_for(self.alpha_pattern, [module], module, self.alpha)
        return {"rank": rank, "alpha": alpha, **self.options}


def read_config(folder: Path) -> PeftConfig:
    """Reads adapter_config.json.

    Args:
        folder: A folder of PEFT.

    Raises:
        CheckpointError: If the file is missing or damaged, or has a setting that is not supported.
    """
    path = folder / CONFIG
    if not has_file(path):
        raise CheckpointError(
            f"There is no {CONFIG} in {folder}. Expected a folder that PEFT or "
            "ft.adapters.save_peft has written."
        )
    config = read_json(path)
    kind = {"LORA": "LoRA", "IA3": "IA3"}.get(member(config, "peft_type", str, path))
    if kind is None:
        raise CheckpointError(
            f"The adapter in {folder} is of the type {config['peft_type']}; supported are LORA and "
            "IA3."
        )
    for key, value in config.items():
        _require_supported(key, value, path)
    base = member(config, "base_model_name_or_path", str, path, "")
    if kind == "IA3":
        return PeftConfig(kind, base)
    flags = {key: member(config, key, bool, path, False) for key in ("use_rslora", "use_dora")}
    bias = member(config, "bias", str, path, "none")
    if bias not in ("none", "all", "lora_only"):
        raise _unsupported("bias", bias, path)
    numbers = (int, float)
    return PeftConfig(
        kind,
        base,
        _positive(config, "r", int, path),
        _positive(config, "lora_alpha", numbers, path),
        _pattern(config, "rank_pattern", int, path),
        _pattern(config, "alpha_pattern", numbers, path),
        {"dropout": member(config, "lora_dropout", numbers, path, 0.0), "bias": bias, **flags},
    )


def _require_supported(key: str, value: Any, path: Path) -> None:
    """Raises an error for a key that might change what the adapter computes."""
    if key in _READ or not value:
        return
    if key not in _WITHOUT_EFFECT:
        raise _unsupported(key, value, path)
    accepted = _WITHOUT_EFFECT[key]
    if accepted is not None and value not in accepted:
        raise _unsupported(key, value, path)


def _unsupported(key: str, value: Any, path: Path) -> CheckpointError:
    reason = f": such an adapter is {_RESET}" if key == "init_lora_weights" else ""
    return CheckpointError(
        f"The key {key!r} of {path} has the value {shown(value)}, which is not supported{reason}. "
        "Merge the adapter with PEFT (merge_and_unload), save the model, and load that with "
        "ft.load."
    )


def _positive(config: dict, key: str, kind: Any, path: Path) -> Any:
    value = member(config, key, kind, path, 8)
    if value <= 0:
        raise CheckpointError(f"The key {key!r} of {path} must be above 0, found {shown(value)}.")
    return value


def _pattern(config: dict, key: str, kind: Any, path: Path) -> dict[str, Any]:
    pattern = member(config, key, dict, path, {})
    for name in pattern:
        member(pattern, name, kind, path)
        try:
            re.compile(name)
        except re.error as error:
            raise CheckpointError(
                f"The key {key!r} of {path} contains {name!r}, which is not a valid regular "
                f"expression: {error}."
            ) from None
    return pattern


def target_modules(
    targets: Collection[str], others: Collection[str]
) -> tuple[list[str], list[int] | None]:
    """Returns short names by which PEFT finds exactly the adapted modules.

    Args:
        targets: The complete names of the adapted modules.
        others: Those of all other modules that could be meant.

    Returns:
        The keys `target_modules` and `layers_to_transform` of the config. The latter is None where
        the names alone suffice.
    """
    numbers = {_number_of(name) for name in targets}
    every = {_number_of(name) for name in [*targets, *others]}
    blocks = None
    if None not in numbers and numbers != every - {None}:
        blocks = sorted(numbers)
        others = [name for name in others if _number_of(name) in numbers]
    found = list(dict.fromkeys(_shortest_end(name, others) for name in targets))
    everything = all(_is_found(name, found, blocks) for name in targets)
    return (found, blocks) if everything else (sorted(targets), None)


def _number_of(name: str) -> int | None:
    """Returns the number of the block of a module, as PEFT finds it."""
    match = re.match(r".*\.[^.]*\.(\d+)\.", name)
    return int(match[1]) if match else None


def _shortest_end(name: str, others: Collection[str]) -> str:
    """Returns the fewest last parts of a name with which none of the others ends."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(f".{other}".endswith(f".{end}") for other in others):
            return end
    return name


def _is_found(name: str, ends: Sequence[str], blocks: list[int] | None) -> bool:
    if name in ends:
        return True
    is_end = any(name.endswith(f".{end}") for end in ends)
    return is_end and (blocks is None or _number_of(name) in blocks)
