"""Search: learning rates, settings of the recipe, and checkpoints to start from."""

from finetune_tf.search.ranking import Ranking
from finetune_tf.search.rate_curve import RateCurve
from finetune_tf.search.rate_finder import find_rate
from finetune_tf.search.scoring import rank_checkpoints
from finetune_tf.search.space import between
from finetune_tf.search.tuned import TuneResult
from finetune_tf.search.tuning import tune

__all__ = [
    "Ranking",
    "RateCurve",
    "TuneResult",
    "between",
    "find_rate",
    "rank_checkpoints",
    "tune",
]
