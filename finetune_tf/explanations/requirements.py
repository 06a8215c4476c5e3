"""What `explain` and `check` require of a model, of a method, and of its options."""

import difflib
from collections.abc import Iterable
from typing import Any

from finetune_tf.architectures.towers import IMAGE, TEXT
from finetune_tf.base.arguments import shown
from finetune_tf.data import Examples
from finetune_tf.errors import ArgumentError, DataTypeError, ModelError
from finetune_tf.explanations.methods import METHODS, Method
from finetune_tf.explanations.subject import BASELINES
from finetune_tf.graph.stages import require_model, require_task
from finetune_tf.model.feature_models import FeatureModel
from finetune_tf.tasks import TASKS

STEPS = 50
_DEFAULTS: dict[str, Any] = {
    "steps": STEPS,
    "baseline": "padding",
    "patch": None,
    "stage": None,
    "examples": None,
    "neighbors": 5,
}


def method_of(name: Any) -> Method:
    """Returns the method of a name.

    Raises:
        ModelError: If there is none.
    """
    if name not in METHODS:
        plain = str(name).lower().replace("_", "-").replace(" ", "-")
        plain = _SHORT.get(plain, plain)
        close = difflib.get_close_matches(plain, METHODS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ModelError(f"method= is one of {', '.join(METHODS)}; found {shown(name)}.{hint}")
    return METHODS[name]


# What methods are called elsewhere.
_SHORT = {
    "ig": "integrated-gradients",
    "saliency": "gradient-x-input",
    "input-x-gradient": "gradient-x-input",
    "leave-one-out": "occlusion",
    "attention": "attention-rollout",
    "rollout": "attention-rollout",
    "gradcam": "grad-cam",
    "knn": "nearest",
}


def require_explainable(model: Any) -> None:
    """Checks that a model has a task whose outputs can be explained.

    Raises:
        ModelError: If it does not.
    """
    require_model(model)
    if isinstance(model, FeatureModel):
        raise ModelError(
            "This is the upper part of a model, which reads cached features and no words. Explain "
            "the whole model, which has the same weights: ft.explain(learner.whole, …)."
        )
    task = require_task(model).task
    if not task.can_explain:
        able = [name for name, each in TASKS.items() if each.can_explain]
        raise ModelError(
            f"A model for {task.name} has no label or answer to explain. Explanations are for "
            f"{', '.join(able)}."
        )


def check_options(name: str, method: Method, options: dict[str, Any]) -> None:
    """Checks the options of `explain` for a method.

    Raises:
        ArgumentError: If an option is one of other methods only, or has no such value.
        DataTypeError: If the method needs training examples, and there are none.
    """
    for option, value in options.items():
        check_option(name, method, option, value)
    check_baseline(options["baseline"])
    if "examples" in method.options and not isinstance(options["examples"], Examples):
        raise DataTypeError(
            f"method={name!r} finds the nearest training examples: pass them as examples=train; "
            f"found {shown(options['examples'])}."
        )


def check_option(name: str, method: Method, option: str, value: Any) -> None:
    """Checks that an option is one of a method, if it is given.

    Raises:
        ArgumentError: If it is one of other methods only.
    """
    is_given = value is not _DEFAULTS[option] and value != _DEFAULTS[option]
    if is_given and option not in method.options:
        having = [other for other, each in METHODS.items() if option in each.options]
        raise ArgumentError(
            f"{option}= is an option of {', '.join(having)}, and not of {name}. Leave it out, "
            "or choose another method."
        )


def check_baseline(baseline: Any) -> None:
    """Checks the name of a baseline.

    Raises:
        ArgumentError: If there is none of that name.
    """
    if baseline not in BASELINES:
        raise ArgumentError(
            f"baseline= is one of {', '.join(map(repr, BASELINES))}; found {shown(baseline)}."
        )


def check_places(places: Iterable[str], patch: int | None, baseline: str) -> None:
    """Checks that a model reads what `patch` and `baseline` are about.

    Args:
        places: The places at which the model is cut, "text" and "image".
        patch: As for `explain`.
        baseline: As for `explain`.

    Raises:
        ArgumentError: If it does not.
    """
    if patch is not None and IMAGE not in places:
        raise ArgumentError(f"patch={patch} is for pictures, and this model reads texts.")
    if baseline != _DEFAULTS["baseline"] and TEXT not in places:
        raise ArgumentError(
            f"baseline={baseline!r} is for words, and this model reads pictures, whose patches are "
            "replaced by the mean color. Leave it out."
        )
