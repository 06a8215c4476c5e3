"""The rows with the highest losses."""

from finetune_tf.data import Examples
from finetune_tf.diagnosis.results import TopLosses
from finetune_tf.model.finetune_model import FineTuneModel


def top_losses(
    model: FineTuneModel, examples: Examples, n: int = 20, *, batch_size: int = 64
) -> TopLosses:
    """Returns the rows on which the loss of a model is highest."""
    raise NotImplementedError
