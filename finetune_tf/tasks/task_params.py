"""The parameters of a task in a config: `task_specific_params`, as in the configs of T5.

    {"summarization": {"prefix": "summarize: ", "max_length": 200},
     "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 300}}

A checkpoint may have several translations. The one that a model is trained for is recorded under
the name of the task, "translation", and takes precedence over the others.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from finetune_tf.base.arguments import RULES, shown
from finetune_tf.errors import CheckpointError, ModelError
from finetune_tf.messages import say, warn

_KEY = "task_specific_params"


def params_of(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Returns the parameters of a task: "prefix", "max_length" and others; empty without any.

    Args:
        config: A Hugging Face config.
        task: The name of the task.

    Raises:
        CheckpointError: If the config has something else in their place.
        ModelError: If the config has several entries for the task, with different prefixes.

    Example:
        >>> from finetune_tf.tasks.task_params import params_of
        >>> params_of({"task_specific_params": {"translation": {"prefix": "t: "}}}, "translation")
        {'prefix': 't: '}
    """
    entries = _entries(config, task)
    if task in entries:
        return entries[task]
    if len({entry.get("prefix") for entry in entries.values()}) > 1:
        raise ModelError(
            f"The checkpoint has a prefix for each of {', '.join(sorted(entries))}. Choose one "
            f'where texts are batched for training, such as batches(model, languages=("en", "de"))'
            ", or, without training, where the model is loaded: ft.load(checkpoint, "
            f'"{task}", config={{"{_KEY}": {{"{task}": {{"prefix": "…"}}}}}}).'
        )
    default = {"prefix": config["prefix"]} if config.get("prefix") else {}
    return _checked(default, "prefix") | next(iter(entries.values()), {})


def params_of_languages(config: Mapping[str, Any], task: str, languages: Any) -> dict[str, Any]:
    """Returns the parameters for a pair of languages, such as those of "translation_en_to_de".

    Args:
        config: A Hugging Face config.
        task: The name of the task.
        languages: The codes of the language of the sources and of that of the targets.

    Raises:
        ModelError: If the config has no such entry.
    """
    is_pair = isinstance(languages, list | tuple) and len(languages) == 2
    if not is_pair or not all(isinstance(code, str) for code in languages):
        raise ModelError(
            'languages= takes two codes, such as ("en", "de"): that of the sources and that of '
            f"the targets; found {shown(languages)}."
        )
    entries = _entries(config, task)
    wanted = f"{task}_{languages[0]}_to_{languages[1]}"
    if wanted not in entries:
        known = sorted(name for name in entries if name != task)
        raise ModelError(
            f"The config of the checkpoint has no {wanted}; it has {', '.join(known) or 'none'}. "
            "For another pair give the prefix itself, prefix=…; a checkpoint for a single pair "
            "needs neither."
        )
    return entries[wanted]


def record_params(config: MutableMapping[str, Any], task: str, params: Mapping[str, Any]) -> None:
    """Records parameters in the config under the name of the task, and says so if they change.

    Args:
        config: A Hugging Face config, which is changed.
        task: The name of the task.
        params: The parameters.
    """
    before = _entries(config, task).get(task, {})
    changed = {key: value for key, value in params.items() if before.get(key) != value}
    if not changed:
        return
    config[_KEY] = {**(config.get(_KEY) or {}), task: {**before, **changed}}
    listed = " and ".join(f"{key} {value!r}" for key, value in changed.items())
    say(f"The model's config records {listed} for {task}; predictions use it as well.")


def warn_of_prefix(prefix: str, texts: Sequence[Any], name: str) -> None:
    """Warns if texts, in front of which a prefix is put, begin with it already.

    Args:
        prefix: The prefix; "" for none.
        texts: The texts; other values do not matter.
        name: What they are called in messages.
    """
    start = prefix.strip()
    doubled = sum(isinstance(text, str) and text.startswith(start) for text in texts if start)
    if doubled:
        warn(
            f"{name}: {doubled:,} of {len(texts):,} texts begin with the prefix {prefix!r}, which "
            "is put in front of each text, so that they have it twice. Remove it from the texts, "
            'or train without it: batches(model, prefix="").'
        )


def _entries(config: Mapping[str, Any], task: str) -> dict[str, dict[str, Any]]:
    """The entries of the task, and of pairs such as "translation_en_to_de"."""
    found = config.get(_KEY) or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{_KEY} in config.json must be an object with one entry for each task, found "
            f"{shown(found)}. Correct or remove it."
        )
    return {
        name: _checked(entry, f"{_KEY}.{name}")
        for name, entry in found.items()
        if name == task or (name.startswith(f"{task}_") and "_to_" in name)
    }


def _checked(entry: Any, place: str) -> dict[str, Any]:
    values = entry if isinstance(entry, Mapping) else {"prefix": entry}
    has_text = isinstance(values.get("prefix") or "", str) and entry is values
    if not has_text or not RULES["max_target_length"].accepts(values.get("max_length")):
        raise CheckpointError(
            f"{place} in config.json must be an object with a text as prefix and an integer >= 1 "
            f"as max_length, found {shown(entry)}. Correct or remove it."
        )
    return {key: value for key, value in entry.items() if value is not None}
