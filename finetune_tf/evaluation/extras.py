"""Optional packages that metrics need."""

import importlib
from types import ModuleType

from finetune_tf.errors import MissingExtraError

#: What pip calls a package, and the extra of finetune-tf that installs it.
_EXTRAS = {
    "sacrebleu": ("sacrebleu", "generation"),
    "rouge_score": ("rouge-score", "generation"),
}


def require_package(module: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: The module, such as "rouge_score.rouge_scorer".

    Raises:
        MissingExtraError: If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = _EXTRAS[module.partition(".")[0]]
        raise MissingExtraError(
            f"The metrics of this task need {package}, which is not installed. Install it with: "
            f"pip install 'finetune-tf[{extra}]'"
        ) from error
