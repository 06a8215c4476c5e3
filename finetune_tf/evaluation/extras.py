"""Optional packages that metrics and logs need."""

import importlib
from types import ModuleType

from finetune_tf.errors import MissingExtraError

#: What pip calls a package, and the extra of finetune-tf that installs it.
_EXTRAS = {
    "sacrebleu": ("sacrebleu", "generation"),
    "rouge_score": ("rouge-score", "generation"),
    "tensorboard": ("tensorboard", "tensorboard"),
}


def require_package(module: str, purpose: str = "The metrics of this task need") -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: The module, such as "rouge_score.rouge_scorer".
        purpose: The beginning of the message: what needs the package.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = _EXTRAS[module.partition(".")[0]]
        raise MissingExtraError(
            f"{purpose} {package}, which is not installed. Install it with: "
            f"pip install 'finetune-tf[{extra}]'"
        ) from error
