"""How the model was trained, and the code that does it again."""

import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from finetune_tf._version import __version__
from finetune_tf.pages.content import Content
from finetune_tf.pages.elements import Html, code, join, name, table, tag

_SELECTOR = re.compile(
    r"\b(everything|head|embeddings|chain|blocks|bottom|biases|norms|adapters|matching)(?=\()"
)
_PACKAGES = ("tensorflow", "keras", "transformers", "numpy")
#: The key of `settings` with the command that was typed.
COMMAND = "command"
# Settings that are the names of data, or what the run made of other settings.
_NOT_ARGUMENTS = {"checkpoint", "train", "validation", "test", "task", "interrupted", COMMAND}
_DEFAULTS = {
    "policy": "full",
    "learning_rate": "auto",
    "optimizer": "adamw",
    "schedule": "linear",
    "weight_decay": 0.01,
    "label_smoothing": 0.0,
    "keep": "best",
    "store_features": "True",
}


def settings(content: Content) -> Html:
    """Returns checkpoint, settings of the training, fits and versions."""
    words, model = content.words, content.model
    given = dict(_of_model(model)) | {
        key: value
        for key, value in content.settings.items()
        if value is not None and key != COMMAND
    }
    parts = []
    if given:
        rows = [[_title(content, key), _value(value)] for key, value in given.items()]
        parts.append(table([words("settings.name"), words("settings.value")], rows))
    else:
        parts.append(tag("p", words.html("settings.unknown")))
    if fits := _fits(content):
        parts.append(fits)
    versions = [["finetune_tf", __version__], ["Python", platform.python_version()]]
    versions += [[package, _version(package)] for package in _PACKAGES]
    header = [words("settings.package"), words("settings.version")]
    return join([*parts, table(header, [[tag("code", a), b] for a, b in versions])])


def reproduce(content: Content) -> Html:
    """Returns the command that was typed, or a snippet that makes the report again."""
    words = content.words
    typed = content.settings.get(COMMAND)
    if typed:
        return join([tag("p", words.html("reproduce.command")), code(str(typed))])
    return join([tag("p", words.html("reproduce.snippet")), code(_snippet(content))])


def _title(content: Content, key: str) -> Any:
    known = f"setting.{key}"
    return content.words(known) if content.words.has(known) else tag("code", key)


def _value(value: Any) -> Html:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return name(value, 300)


def _of_model(model: Any) -> Mapping[str, Any]:
    """What a model knows of itself."""
    info = getattr(model, "info", None)
    if info is None:
        return {}
    path = Path(info.checkpoint)
    found = {
        # The last two names of a folder, which do not reveal where it was on a machine.
        "checkpoint": "/".join(path.resolve().parts[-2:]) if path.is_dir() else info.checkpoint,
        "model_type": info.config.get("model_type"),
        "task": info.task,
        "pooling": info.pooling,
        "data": info.record.get("data"),
        "parameters": f"{model.count_params():,}",
    }
    return {key: value for key, value in found.items() if value is not None}


def _fits(content: Content) -> Html | None:
    info = getattr(content.model, "info", None)
    fits = info.record.get("fits") if info else None
    if not fits:
        return None
    keys = ("trained", "epochs", "steps", "optimizer", "learning_rate")
    rows = [[name(fit.get(key, "")) for key in keys] for fit in fits]
    header = [content.words(f"fit.{key}") for key in keys]
    return table(header, rows, numeric=(1, 2), caption=content.words("fit.caption"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # such as a TensorFlow under another name
        return "–"


def _snippet(content: Content) -> str:
    """Python code with the settings that are not the defaults."""
    words, given = content.words, content.settings
    lines = ["import finetune_tf as ft", ""]
    if not given:
        checkpoint = getattr(getattr(content.model, "info", None), "checkpoint", "my-model")
        lines += [
            f"test = ...  # {words('reproduce.read')}: {_comment(content.report.name)}",
            f"model = ft.load({checkpoint!r})",
            "report = ft.evaluate(model, test)",
            f'report.save_html("report.html", lang="{words.lang}", model=model)',
        ]
        return "\n".join(lines)
    names = [key for key in ("train", "validation", "test") if given.get(key)]
    for key in names:
        lines.append(f"{key} = ...  # {words('reproduce.read')}: {_comment(given[key])}")
    arguments = [repr(given.get("checkpoint")), *(f"{key}={key}" for key in names)]
    arguments += [
        f"{key}={_as_code(key, value)}"
        for key, value in given.items()
        if key not in _NOT_ARGUMENTS and value is not None and _DEFAULTS.get(key) != value
    ]
    lines += ["result = ft.finetune(", *(f"    {each}," for each in arguments), ")"]
    lines.append(f'result.save_html("report.html", lang="{words.lang}", train=train)')
    return "\n".join(lines)


def _as_code(key: str, value: Any) -> str:
    """Returns the code of an argument; selectors and objectives are recorded as their names."""
    if key == "objectives":
        return f"[{', '.join(f'ft.objectives.{each}' for each in value)}]"
    if key == "policy" and "(" in value:
        return _selector(value)
    if key == "rates":
        factors = (f"{_selector(k) if '(' in k else repr(k)}: {v!r}" for k, v in value.items())
        return f"{{{', '.join(factors)}}}"
    return repr(value)


def _selector(text: str) -> str:
    """Returns the code of a selector such as "(head() | blocks(-3))"."""
    return _SELECTOR.sub(lambda found: f"ft.select.{found[0]}", text)


def _comment(text: Any) -> str:
    """A name from data on one line of a comment."""
    return " ".join(str(text).split())
