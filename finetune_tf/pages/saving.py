"""Checks of the inputs of a page, and the file."""

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_tf.base.arguments import check, shown
from finetune_tf.base.files import write_text
from finetune_tf.base.paths import absolute
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataError, DataTypeError, ModelError
from finetune_tf.evaluation.curves import values_of_history
from finetune_tf.evaluation.report import Report
from finetune_tf.graph.stages import require_task
from finetune_tf.pages.content import Content
from finetune_tf.pages.page import page
from finetune_tf.pages.sections import RESULTS
from finetune_tf.pages.words import Words


def save_html(
    report: Report,
    path: str | os.PathLike,
    lang: str = "en",
    *,
    model: Any = None,
    train: Examples | None = None,
    history: Any = None,
    settings: Mapping[str, Any] | None = None,
    results: Sequence[Any] = (),
    explanations: int = 5,
) -> Path:
    """Writes the page of a report; see `Report.save_html`."""
    check(explanations=explanations)
    words, path = Words(lang), _file(path)
    if model is not None:
        _check_model(model, report)
    if train is not None and not isinstance(train, Examples):
        raise DataTypeError(f"train= must be Examples, as from_csv returns; found {shown(train)}.")
    if settings is not None and not isinstance(settings, Mapping):
        raise DataTypeError(
            "settings= must be a dict, such as the settings of what finetune returns; found "
            f"{shown(settings)}."
        )
    content = Content(
        report,
        words,
        model=model,
        train=train,
        history={} if history is None else values_of_history(history, "history="),
        settings=settings or {},
        explanations=explanations,
        results=_by_type(results),
        written=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(path, page(content), DataError)
    return path


def _file(path: str | os.PathLike) -> Path:
    path = absolute(path, DataError)
    if path.is_dir():
        raise DataError(f"{path} is a folder. Name a file in it, such as {path / 'report.html'}.")
    return path


def _check_model(model: Any, report: Report) -> None:
    labels = require_task(model).labels
    if set(labels or ()) != set(report.labels or ()):
        raise ModelError(
            f"model= must be the model that was evaluated: the report has the labels "
            f"{_listed(report.labels)}, and the model {_listed(labels)}."
        )


def _listed(labels: Any) -> str:
    return "(none)" if labels is None else labels.listed()


def _by_type(results: Sequence[Any]) -> dict[type, Any]:
    """The results by their types, of which each may occur once."""
    if not isinstance(results, list | tuple):
        results = [results]
    found: dict[type, Any] = {}
    for result in results:
        if not isinstance(result, RESULTS):
            names = ", ".join(kind.__name__ for kind in RESULTS)
            raise ArgumentError(f"results= takes {names}; found {shown(result)}.")
        if type(result) in found:
            raise ArgumentError(
                f"results= has two results of the kind {type(result).__name__}; a page shows one."
            )
        found[type(result)] = result
    return found
