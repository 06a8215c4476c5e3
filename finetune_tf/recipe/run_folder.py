"""The result of `finetune` and its folder, which is written atomically."""

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_tf.base.files import unfinished_folder, write_text
from finetune_tf.base.json_files import read_json
from finetune_tf.base.paths import absolute, has_file
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples
from finetune_tf.errors import CheckpointError, DataError, MissingExtraError
from finetune_tf.evaluation import Report
from finetune_tf.evaluation.curves import plot_history
from finetune_tf.messages import say
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf.model.saving import say_saved, write_checkpoint

# Earlier versions wrote the settings to config.json, which is a different file in a checkpoint.
_OLD_SETTINGS = "config.json"
#: The files of a run; a name that ends with a dot is the prefix of several files.
RUN = ("settings.json", "history.", "report.", "checkpoint", _OLD_SETTINGS)
#: The files of a report.
REPORT = ("report.",)


@dataclass
class FinetuneResult:
    """The result of `finetune`.

    Attributes:
        model: The fine-tuned model, with the weights that `keep` selects.
        history: One value per epoch by metric name, over all phases.
        report: The report on the test examples; None without test examples.
        settings: The arguments of the call.

    Example:
        >>> result = ft.finetune(checkpoint, train, train, policy="head", epochs=1, verbose=0)
        >>> result.settings["policy"], result.report
        ('head', None)
        >>> result.save("runs/first").name
        'first'
    """

    model: FineTuneModel
    history: dict[str, list[float]]
    report: Report | None
    settings: dict[str, Any]

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes the run: settings.json, history.json, checkpoint/, report.* and figures.

        The checkpoint includes a model card with the data and the results (Mitchell et al., Model
        Cards for Model Reporting, FAT* 2019).

        Args:
            folder: The folder, which is created if it does not exist. It is written atomically;
                other files in it are kept.
            overwrite: Whether to replace an earlier run in the folder completely.

        Returns:
            The absolute path of the folder.

        Raises:
            CheckpointError: If the folder contains a run and `overwrite` is false, is a checkpoint
                or the current working directory, or cannot be written.
        """
        folder = check_run(folder, overwrite)
        report = self.report
        if report is not None and "result" not in self.model.info.record:
            say(
                "The model was changed after its report, by another fit for example, so the report "
                "is not saved. Evaluate it again: result.report = ft.evaluate(result.model, test)."
            )
            report = None
        with unfinished_folder(folder, ("history.*", "report.*", _OLD_SETTINGS)) as temporary:
            write_checkpoint(self.model, temporary / "checkpoint")
            write_text(temporary / "settings.json", json.dumps(self.settings, indent=2) + "\n")
            write_text(temporary / "history.json", json.dumps(self.history, indent=2) + "\n")
            if report is not None:
                report.save(temporary, history=self.history or None, settings=self.settings)
            try:
                if self.history:
                    plot_history(self.history).savefig(temporary / "history.png", dpi=150)
            except MissingExtraError as error:
                say(f"No figures are saved: {error}")
        self.model.info.tokenizer = str(folder / "checkpoint")
        say_saved(self.model, folder / "checkpoint")
        return folder

    @names_checked
    def save_html(
        self,
        path: str | os.PathLike,
        lang: str = "en",
        *,
        train: Examples | None = None,
        results: Sequence[Any] = (),
        explanations: int = 5,
    ) -> Path:
        """Writes the report with all that the model can tell; see `Report.save_html`.

        The page in the folder of `save` has no such details, which take several runs of the model
        over the test set.

        Args:
            path: As for `Report.save_html`, as are all other arguments.
            lang: "en" or "zh".
            train: The training examples, for near duplicates and drift.
            results: Results of `ft.diagnosis` or `ft.calibration` to show.
            explanations: The number of examples that are explained.

        Returns:
            The absolute path of the file.

        Raises:
            DataError: If there is no report.
            FinetuneError: As for `Report.save_html`.
        """
        if self.report is None:
            raise DataError(
                "This run has no report, because it had no test examples: give test= to finetune, "
                "or evaluate(model, test).save_html(path)."
            )
        return self.report.save_html(
            path,
            lang,
            model=self.model,
            train=train,
            history=self.history or None,
            settings=self.settings,
            results=results,
            explanations=explanations,
        )


def check_output(
    folder: str | Path,
    names: tuple[str, ...],
    overwrite: bool = False,
    how: str = "overwrite=True",
) -> Path:
    """Checks that results can be written to a folder, before they are computed.

    Args:
        folder: The folder. It is not created, so that nothing is left over if the work fails.
        names: The names of the files that will be written; see `RUN`.
        overwrite: Whether such files may exist already.
        how: The argument or option that allows overwriting, for the message.

    Returns:
        The absolute path of the folder.

    Raises:
        CheckpointError: If the folder contains such files and `overwrite` is false, or cannot be
            written.
    """
    folder = absolute(folder)
    _check_writable(folder)
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    prefixes = tuple(name for name in names if name.endswith("."))
    existing = [name for name in found if name in names or name.startswith(prefixes)]
    if existing and not overwrite:
        raise CheckpointError(
            f"{folder} already contains {', '.join(existing)}. Choose another folder, or replace "
            f"these files with {how}."
        )
    return folder


def check_run(folder: str | Path, overwrite: bool = False, how: str = "overwrite=True") -> Path:
    """Checks that a run can be written to a folder, with the arguments of `check_output`."""
    folder = check_output(folder, RUN, overwrite, how)
    if Path.cwd().is_relative_to(folder):
        raise CheckpointError(
            f"{folder} is the current working directory or a parent of it, so it cannot be "
            "replaced. Choose a separate folder for the run."
        )
    config = folder / "config.json"
    if has_file(config) and "model_type" in read_json(config):
        raise CheckpointError(
            f"{folder} is a checkpoint and not the folder of a run, so it is not replaced. Choose "
            "another folder for the run."
        )
    return folder


def _check_writable(folder: Path) -> None:
    """Tries to create a file in the folder, or in the nearest parent folder that exists."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder)  # raises an error if the name is too long
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}). Choose a writable folder."
        ) from None
