"""The model card (Mitchell et al. 2019): what a saved model is, learnt from, and scored."""

import html
import re
from pathlib import Path
from typing import Any

from finetune_tf.messages import one_line

# What would be a mark of Markdown or HTML; underscores only where they are not inside a word.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|(?<=\w):(?=//)|(?<=www)\.")

# How each library turns texts into what finetune_tf's model returns; tasks of transformers that
# are not named here have a pipeline as text classification does.
_USAGE = {
    "transformers": """from transformers import pipeline

classify = pipeline("{task}", model="{folder}"{options})
classify("…")""",
    "question-answering": """from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
inputs = AutoTokenizer.from_pretrained("{folder}")("question", "context", return_tensors="pt")
model(**inputs)  # start_logits and end_logits""",
    "sentence_transformers": """from sentence_transformers import SentenceTransformer

{outputs} = SentenceTransformer("{folder}").encode(["…"])""",
}
# With these, it says what `predict` says.
_OPTIONS = {"token-classification": ', aggregation_strategy="first"'}


def model_card(info: Any, opens_in: str, lines: dict[str, str], usage: str) -> str:
    """The README.md of a saved model.

    Args:
        info: The model's `ModelInfo`; its record holds fits and results.
        opens_in: PyTorch class that opens the folder.
        lines: More facts, name to text; they may be Markdown.
        usage: A call of `predict`.
    """
    is_text = info.task == "text-classification"
    kind = info.labels.problem_type if is_text else info.task
    task = "" if is_text else f', "{info.task}"'
    facts = {
        "checkpoint": _plain(_checkpoint_name(info)),
        "task": f"{info.task}, {kind}" if is_text else kind,
        **({"labels": _plain(", ".join(info.labels))} if info.labels else {}),
        **({"pooling": info.pooling} if info.pooling else {}),
        **({"data": _plain(info.record["data"])} if "data" in info.record else {}),
        **{name: one_line(str(line)) for name, line in lines.items()},
    }
    parts = [
        "---",
        "library_name: finetune_tf",
        f"pipeline_tag: {info.task}",
        "---",
        "",
        f"# {kind.replace('_', ' ').replace('-', ' ').capitalize()} fine-tuned with finetune_tf",
        "",
        *(f"- **{name}**: {text}" for name, text in facts.items()),
        "",
        *_fits(info.record.get("fits", [])),
        *_result(info.record.get("result")),
        "## Use",
        "",
        f"It opens in `{opens_in}`:",
        "",
        "```python",
        _USAGE.get(info.task, _USAGE[opens_in.split(".")[0]]).format(
            folder="path/to/this/folder",
            task=info.task,
            options=_OPTIONS.get(info.task, ""),
            outputs="logits" if is_text else "embeddings",
        ),
        "```",
        "",
        "and in finetune_tf:",
        "",
        "```python",
        "import finetune_tf as ft",
        "",
        f'model = ft.load("path/to/this/folder"{task})',
        usage,
        "```",
        "",
    ]
    return "\n".join(parts)


def _plain(text: str) -> str:
    """A text that comes from data, escaped so that Markdown and HTML show it as it is."""
    return _MARKS.sub(lambda mark: f"\\{mark[0]}", html.escape(one_line(text), quote=False))


def _checkpoint_name(info: Any) -> str:
    """A Hub id as it is; of a folder the last two names, and not where on a machine it lay.

    What config.json has under `_name_or_path` is often the checkpoint before this one.
    """
    path = Path(info.checkpoint)
    return "/".join(path.resolve().parts[-2:]) if path.is_dir() else info.checkpoint


def _fits(fits: list[dict]) -> list[str]:
    if not fits:
        return []
    rows = [
        f"| {i} | {fit['trained']} | {fit['epochs']} | {fit['steps']} | {fit['optimizer']} "
        f"| {fit['learning_rate']} | {_plain(_values(fit['last']))} |"
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


def _result(result: dict | None) -> list[str]:
    """A table from a report's plain values, the baseline beside the model."""
    if not result:
        return []
    baseline = result["baseline"]
    header = "| metric | fine-tuned |" + (f" {_plain(baseline['name'])} |" if baseline else "")
    rows = [
        f"| {_plain(name)} | {value:.4f} |"
        + (f" {baseline['metrics'][name]:.4f} |" if baseline else "")
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


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
