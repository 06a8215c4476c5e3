"""The model card (Mitchell et al. 2019): what a saved model is, its training data and results."""

import html
import re
from pathlib import Path
from typing import Any, Protocol

from finetune_tf.messages import one_line

# The marks of Markdown and HTML; an underscore is one only where it is not inside a word.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|(?<=\w):(?=//)|(?<=www)\.")


class CardTask(Protocol):
    """The part of a task that its model card shows; see `tasks.Task`."""

    name: str
    problem_type: str | None
    title: str

    def usage_for(self, config: Any) -> Any:
        """Returns the code that shows how a model with this config is used."""


def model_card(info: Any, opens_in: str, lines: dict[str, str], task: CardTask) -> str:
    """Writes the README.md of a saved model.

    Args:
        info: The model's `ModelInfo`; its record holds fits and results.
        opens_in: The Python class that opens the folder, with its package.
        lines: Further facts, name to text; they may be Markdown.
        task: The task of the model.
    """
    facts = {
        "checkpoint": _plain(_checkpoint_name(info)),
        "task": ", ".join(filter(None, (task.name, task.problem_type))),
        **({"labels": _plain(", ".join(info.labels))} if info.labels else {}),
        **({"pooling": info.pooling} if info.pooling else {}),
        **({"data": _plain(info.record["data"])} if "data" in info.record else {}),
        **({"weights": info.record["weights"]} if "weights" in info.record else {}),
        **_decisions(info.config),
        **{fact: one_line(str(line)) for fact, line in lines.items()},
    }
    title = task.title.replace("_", " ").replace("-", " ").capitalize()
    library, own = opens_in.split(".")[0], "finetune_tf"
    usage = task.usage_for(info.config)
    examples = {f"It opens in `{opens_in}`:": library}
    if library != own:
        examples["and in finetune_tf:"] = own
    parts = [
        "---",
        "library_name: finetune_tf",
        f"pipeline_tag: {task.name}",
        "---",
        "",
        f"# {title} fine-tuned with finetune_tf",
        "",
        *(f"- **{name}**: {text}" for name, text in facts.items()),
        "",
        *_fits(info.record.get("fits", [])),
        *_result(info.record.get("result")),
        "## Use",
        "",
    ]
    for introduction, name in examples.items():
        code = usage.code(name, "path/to/this/folder", task.name)
        parts += [introduction, "", "```python", code, "```", ""]
    return "\n".join(parts)


def _decisions(config: Any) -> dict[str, str]:
    """What `calibrate` and `choose_thresholds` recorded in the config (`tasks.decisions`)."""
    facts = {}
    if record := config.get("calibration"):
        facts["calibration"] = (
            f"the output layer is divided by the temperature {_plain(_numbers(record))}, from "
            f"{record['examples']:,} validation examples; all libraries read the divided weights"
        )
    if thresholds := config.get("label_thresholds"):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in thresholds.items())
        facts["thresholds"] = (
            f"{_plain(listed)}; finetune_tf predicts a label from this probability on. PyTorch "
            "does not know them: compare the probabilities with them."
        )
    return facts


def _numbers(record: dict[str, Any]) -> str:
    found = record["temperature"]
    if not isinstance(found, dict):
        return f"{found:.4g}"
    return ", ".join(f"{value:.4g} ({name})" for name, value in found.items())


def _plain(text: str) -> str:
    """Escapes a text that comes from data, so that Markdown and HTML show it unchanged."""
    return _MARKS.sub(lambda mark: f"\\{mark[0]}", html.escape(one_line(text), quote=False))


def _checkpoint_name(info: Any) -> str:
    """A Hub id, or the last two names of a folder, which do not reveal where it was on a machine.

    The key `_name_or_path` of config.json is not used: it is often the checkpoint before this one.
    """
    path = Path(info.checkpoint)
    return "/".join(path.resolve().parts[-2:]) if path.is_dir() else info.checkpoint


def _fits(fits: list[dict]) -> list[str]:
    if not fits:
        return []
    rows = [
        f"| {i} | {fit['trained']} | {fit['epochs']} | {fit['steps']} | {fit['optimizer']} "
        f"| {fit['learning_rate']} | {_restored(fit)}{_plain(_values(fit['last']))} |"
        for i, fit in enumerate(fits, 1)
    ]
    return [
        "## Training",
        "",
        "| fit | trained | epochs | steps an epoch | optimizer | rate | at the end |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _restored(fit: dict) -> str:
    return f"weights of epoch {fit['restored']}: " if "restored" in fit else ""


def _result(result: dict | None) -> list[str]:
    """A table of the metrics of model and baseline, from `Report.to_dict`."""
    if not result:
        return []
    baseline = result["baseline"]
    header = "| metric | fine-tuned |" + (f" {_plain(baseline['name'])} |" if baseline else "")
    rows = [
        f"| {_plain(name)} | {value:.4f} |"
        + (f" {_number(baseline['metrics'].get(name))} |" if baseline else "")
        for name, value in result["metrics"].items()
    ]
    lines = [
        "## Result",
        "",
        f"Measured on {_plain(result['name'])} ({result['texts']:,} texts).",
        "",
        header,
        "|---" * (3 if baseline else 2) + "|",
        *rows,
        "",
    ]
    if difference := result["difference"]:
        lines += [
            f"Difference in {difference['metric']}: {difference['value']:+.3f} (95% interval "
            f"{difference['low']:+.3f} to {difference['high']:+.3f}, paired bootstrap).",
            "",
        ]
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
