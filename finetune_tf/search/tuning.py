"""`tune`: searches settings of `finetune` with Optuna."""

import gc
import inspect
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_tf.base.arguments import check
from finetune_tf.base.spelling import names_checked
from finetune_tf.data import Examples, overlap
from finetune_tf.errors import ArgumentError, FinetuneError
from finetune_tf.evaluation import compare
from finetune_tf.evaluation.evaluators.registry import evaluator_of
from finetune_tf.messages import quiet, say
from finetune_tf.model.loading import load
from finetune_tf.recipe.phases import phases_of
from finetune_tf.recipe.recipe import check_examples, finetune, say_shared
from finetune_tf.recipe.run_folder import FinetuneResult, check_output
from finetune_tf.search.reports import Reports
from finetune_tf.search.space import (
    checked_space,
    combinations,
    default_space,
    settings_of,
)
from finetune_tf.search.study import (
    DEFAULT,
    ERROR,
    REPEATED,
    SECONDS,
    ask,
    identity_of,
    new_study,
    quiet_optuna,
    require_optuna,
    stored_study,
)
from finetune_tf.search.tuned import BEST_NAME, DEFAULT_NAME, TunedTrial, TuneResult, folder_of
from finetune_tf.tasks import task_options

# Arguments of `finetune` that `tune` sets itself.
_OWN = ("checkpoint", "train", "validation", "test", "baseline", "callbacks", "verbose", "options")
_OWN += ("seed", "store_features")


def _settings() -> list[str]:
    """Returns the arguments of `finetune` that can be the same in all trials."""
    names = [name for name in inspect.signature(finetune).parameters if name not in _OWN]
    return [*names, *task_options()]


@names_checked(also=_settings)
def tune(
    checkpoint: str | Path,
    train: Examples,
    validation: Examples | None = None,
    test: Examples | None = None,
    *,
    folder: str | Path | None = None,
    space: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    trials: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> TuneResult:
    """Searches settings of `finetune` for a checkpoint and a data set.

    The default settings run first. Then Optuna proposes settings (Akiba et al., Optuna: A
    Next-generation Hyperparameter Optimization Framework, KDD 2019) with its tree-structured Parzen
    estimator. A trial whose validation result is below the median of the finished ones at the same
    epoch is stopped early. All trials have the same seed, and share the features of frozen blocks.

    The search is stored in `folder`. The same call continues a search that was interrupted, also in
    the middle of a trial, and proposes what it would have proposed without the interruption. With a
    larger budget, it continues a finished search.

    The validation result of the best of many trials is too good, because it was chosen by it. The
    lead of the best trial over the default settings is therefore measured on `test`.

    Args:
        checkpoint: As in `finetune`.
        train: As in `finetune`.
        validation: The examples that choose the trial; by default a tenth of `train` is split off.
        test: The examples on which the best trial is compared with the default settings at the end.
        folder: The folder of the search, which is required: Optuna's journal, the features of
            frozen blocks, and the checkpoints of the default settings and of the best trial.
        space: What is searched: a dict from arguments of `finetune` (policy, learning_rate,
            batch_size, epochs, optimizer, label_smoothing, dropout, pooling, max_length,
            class_weight) to a list of values, a range, or `ft.between(low, high)`. If the policy is
            searched, another argument may have a dict of these for each policy. By default the
            learning rate, the batch size and the number of epochs.
        minutes: The time after which no further trial begins. A trial that runs by then stops after
            its epoch. The default settings always run to their end.
        trials: The number of trials besides the default settings, including those of earlier calls.
        seed: Seed of the search and of every trial.
        **settings: Other arguments of `finetune`, the same for all trials.

    Returns:
        The trials and the best setting; print it, `plot()` it, or paste `code()`. `model` is the
        model of the best trial.

    Raises:
        ArgumentError: If a number is out of range, there is neither `minutes` nor `trials`, no
            folder is given, the space is invalid, or `folder` holds a search with other data or
            other arguments.
        MissingExtraError: If Optuna is not installed.
        FinetuneError: If the default settings cannot be trained. A trial that fails is recorded and
            skipped.

    Example:
        >>> space = {"learning_rate": ft.between(1e-5, 1e-3), "batch_size": [2, 4]}
        >>> result = ft.tune(checkpoint, train, train, space=space, trials=2, folder="search")
        >>> len(result.trials)
        3
        >>> result.code().startswith("ft.finetune(")
        True
    """
    check(minutes=minutes, trials=trials, seed=seed)
    if minutes is None and trials is None:
        raise ArgumentError("tune needs a budget: minutes=…, trials=…, or both.")
    if folder is None:
        raise ArgumentError("tune needs folder=…, where the search is stored and continued.")
    check_examples(train=train, validation=validation, test=test)
    space = checked_space(default_space(settings) if space is None else space, settings)
    require_optuna()
    folder = check_output(folder, ())
    search = _Search(checkpoint, train, validation, space, settings, seed, folder)
    with quiet_optuna():
        return search.run(test, minutes, trials)


class _Search:
    """A search in a folder."""

    def __init__(
        self,
        checkpoint: str | Path,
        train: Examples,
        validation: Examples | None,
        space: dict[str, Any],
        fixed: dict[str, Any],
        seed: int,
        folder: Path,
    ) -> None:
        self._arguments = [
            str(checkpoint),
            "train",
            *([] if validation is None else ["validation"]),
        ]
        self._identity = identity_of(checkpoint, train, validation, space, fixed, seed)
        if validation is None:
            train, validation = train.split(0.1, seed)  # as in `finetune`
        else:
            say_shared(train, validation)  # `finetune` is quiet here
        self._checkpoint, self._train, self._validation = checkpoint, train, validation
        self._space, self._fixed, self._seed, self._folder = space, fixed, seed, folder
        self._deadline = float("inf")

    def run(self, test: Examples | None, minutes: float | None, limit: int | None) -> TuneResult:
        """Runs the trials that the budget allows, and compares the best one."""
        if minutes is not None:
            self._deadline = time.monotonic() + 60 * minutes
        study = stored_study(self._folder, self._identity)
        if study is not None:
            done = len(self._trials(study)) - 1
            say(f"tune continues the search in {self._folder}, after {done} trials.")
        else:
            study = self._begin(test)
        note = self._search(study, float("inf") if limit is None else limit)
        return self._result(study, test, note)

    def _begin(self, test: Examples | None) -> Any:
        """Runs the default settings and creates the study."""
        import optuna

        self._folder.mkdir(parents=True, exist_ok=True)
        reports, begin = Reports(1), time.monotonic()
        with quiet():
            result = self._finetune({}, reports)
            if test is not None:  # raises errors before the search
                evaluator_of(result.model.task).require()
                result.model.task.targets(test)
            result.model.save_pretrained(self._folder / "default")
        _, mode = result.model.task.monitor
        study = new_study(self._folder, self._identity, f"{mode}imize")
        study.add_trial(
            optuna.trial.create_trial(
                value=self._validation_result(result, {}),
                intermediate_values=dict(enumerate(reports.values)),
                user_attrs={
                    DEFAULT: result.model.task.monitor[0],
                    SECONDS: time.monotonic() - begin,
                },
            )
        )
        say(f"Default settings: {reports.metric} {study.trials[0].value:.4f}.")
        return study

    def _search(self, study: Any, limit: float) -> str:
        """Runs trials until the budget is spent; returns why it stopped."""
        possible = combinations(self._space)
        while len(self._trials(study)) - 1 < limit:
            if time.monotonic() >= self._deadline:
                return "The search ended because the time was over."
            tried = [trial.settings for trial in self._trials(study)[1:]]
            if len(tried) >= possible:
                return f"All {len(tried)} combinations of the space were tried."
            trial = ask(study, self._seed)
            settings = settings_of(trial, self._space)
            if settings in tried:  # with the same seed, the result would be the same
                trial.set_user_attr(REPEATED, True)
                study.tell(trial, state=_states().FAIL)
            else:
                self._run_trial(study, trial, settings)
        return "The search ended because all trials were run."

    def _run_trial(self, study: Any, trial: Any, settings: dict[str, Any]) -> None:
        import optuna

        begin = time.monotonic()
        phases = len(phases_of((self._fixed | settings).get("policy", "full")))
        states, value, state = _states(), None, _states().COMPLETE
        try:
            with quiet():
                result = self._finetune(settings, Reports(phases, trial, self._deadline))
                value = self._validation_result(result, settings)
                if self._is_best(study, value):
                    result.model.save_pretrained(self._folder / f"trial-{trial.number}")
            outcome = f"{result.model.task.monitor[0]} {value:.4f}"
        except optuna.TrialPruned as reason:
            state, outcome = states.PRUNED, f"stopped early, {reason}"
        except (FinetuneError, MemoryError) as error:
            state, outcome = states.FAIL, f"failed: {error}"
            trial.set_user_attr(ERROR, f"{error}" or type(error).__name__)
        trial.set_user_attr(SECONDS, time.monotonic() - begin)
        study.tell(trial, value, state)
        self._remove_others(study)
        listed = ", ".join(f"{name} {setting}" for name, setting in settings.items())
        say(f"Trial {trial.number} ({listed}): {outcome}.")

    def _finetune(self, settings: dict[str, Any], reports: "Reports") -> FinetuneResult:
        gc.collect()  # the model of the trial before is part of reference cycles
        return finetune(
            self._checkpoint,
            self._train,
            self._validation,
            baseline=None,
            seed=self._seed,
            store_features=self._folder / "features",
            verbose=0,
            callbacks=(reports,),
            **(self._fixed | settings),
        )

    def _validation_result(self, result: FinetuneResult, settings: dict[str, Any]) -> float:
        """Returns the validation result of the weights that `keep` kept."""
        monitor, mode = result.model.task.monitor
        values = result.history[monitor][-result.settings["epochs"] :]
        if (self._fixed | settings).get("keep", "best") == "last":
            return values[-1]
        return max(values) if mode == "max" else min(values)

    def _is_best(self, study: Any, value: float) -> bool:
        best = study.best_value
        return value > best if study.direction.name == "MAXIMIZE" else value < best

    def _remove_others(self, study: Any) -> None:
        """Removes checkpoints of trials that were the best ones before."""
        for path in self._folder.glob("trial-*"):
            if path.name != f"trial-{study.best_trial.number}":
                shutil.rmtree(path)

    def _trials(self, study: Any) -> list[TunedTrial]:
        """Returns the default settings and the trials; not those that were not really run."""
        from optuna.trial import FixedTrial

        states = _states()
        names = {
            states.COMPLETE: "finished",
            states.PRUNED: "stopped early",
            states.FAIL: "failed",
        }
        found = []
        for trial in study.get_trials(deepcopy=False):
            is_default = DEFAULT in trial.user_attrs
            if trial.state not in names or SECONDS not in trial.user_attrs:
                continue
            settings = {} if is_default else settings_of(FixedTrial(trial.params), self._space)
            found.append(
                TunedTrial(
                    number=None if is_default else trial.number,
                    settings=settings,
                    value=trial.value,
                    state=names[trial.state],
                    seconds=trial.user_attrs[SECONDS],
                    error=trial.user_attrs.get(ERROR),
                )
            )
        return found

    def _result(self, study: Any, test: Examples | None, note: str) -> TuneResult:
        trials = self._trials(study)
        number = study.best_trial.number
        best = next((trial for trial in trials if trial.number == number), trials[0])
        notes, comparison = [note], None
        if test is not None and best.number is not None:
            with quiet():
                task = self._fixed.get("task")
                models = {
                    name: load(self._folder / folder_of(trial), task)
                    for name, trial in ((DEFAULT_NAME, trials[0]), (BEST_NAME, best))
                }
                comparison = compare(models, test, seed=self._seed)
            for name, examples in (("training", self._train), ("validation", self._validation)):
                if shared := overlap(examples, test):
                    notes.append(
                        f"{len(shared):,} of the {len(test):,} rows of {test.name} also occur in "
                        f"the {name} examples, so {test.name} is not untouched."
                    )
        call = {"arguments": self._arguments, "fixed": self._fixed, "seed": self._seed}
        return TuneResult(
            metric=study.trials[0].user_attrs[DEFAULT],
            higher_is_better=study.direction.name == "MAXIMIZE",
            trials=trials,
            best=best,
            call=call,
            folder=self._folder,
            comparison=comparison,
            notes=tuple(notes),
        )


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState
