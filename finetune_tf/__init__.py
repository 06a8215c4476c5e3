"""Fine-tunes Hugging Face checkpoints with Keras 3.

Example:
    import finetune_tf as ft

    train = ft.data.from_csv("train.csv")
    model = ft.load("bert-base-uncased", labels=train.labels)
    model.compile(**ft.presets.cross_entropy())
    model.fit(train.batches(model, batch_size=32, shuffle=True), epochs=3)
    model.save_pretrained("my-model")
"""

from finetune_tf.base import quiet_start  # noqa: F401, I001  (before Keras imports TensorFlow)
from finetune_tf.base import lazy_keras  # noqa: F401  (before anything else imports Keras)
from finetune_tf import (
    _moved,
    adapters,
    calibration,
    callbacks,
    data,
    diagnosis,
    distribution,
    errors,
    fewshot,
    messages,
    presets,
)
from finetune_tf._version import __version__
from finetune_tf.calibration import calibrate
from finetune_tf.distribution import distribute
from finetune_tf.evaluation import (
    compare,
    evaluate,
    interpolation_curve,
    plot_history,
    predict,
    show,
)
from finetune_tf import explanations
from finetune_tf.explanations import explain
from finetune_tf.fewshot import learning_curve, zero_shot
from finetune_tf.generation.generate import generate
from finetune_tf.generation.stream import stream
from finetune_tf.model.feature_cache import FeatureModel, cache_features
from finetune_tf.base.labels import Labels
from finetune_tf.model.dropout import set_dropout
from finetune_tf.model.exports.exported import ExportedModel, load_exported
from finetune_tf.model.interpolation import interpolate
from finetune_tf.model.keeping_blocks import keep_blocks
from finetune_tf.model.loading import load
from finetune_tf.model.fusing import fuse
from finetune_tf.model.finetune_model import FineTuneModel
from finetune_tf import meta
from finetune_tf.recipe.recipe import FinetuneResult, finetune
from finetune_tf.graph.stages import Stage, stages
from finetune_tf.search import between, find_rate, rank_checkpoints, tune
from finetune_tf.serving import serve
from finetune_tf.training import (
    count_parameters,
    freeze,
    measure_batch_statistics,
    objectives,
    select,
    train_batch_statistics,
    train_only,
)
from finetune_tf.training.parameter_table import parameter_table
from finetune_tf.training.starting import start_from_mean

_moved.install(__name__)


def __getattr__(name: str) -> object:
    """Resolves the class names of transformers 4, such as `TFBertForSequenceClassification`."""
    if name.startswith("TF"):
        from finetune_tf import compat

        return getattr(compat, name)
    raise AttributeError(f"module 'finetune_tf' has no attribute {name!r}")


__all__ = [
    "ExportedModel",
    "FeatureModel",
    "FineTuneModel",
    "FinetuneResult",
    "Labels",
    "Stage",
    "__version__",
    "adapters",
    "between",
    "cache_features",
    "calibrate",
    "calibration",
    "callbacks",
    "compare",
    "count_parameters",
    "data",
    "diagnosis",
    "distribute",
    "distribution",
    "errors",
    "evaluate",
    "explain",
    "explanations",
    "fewshot",
    "find_rate",
    "finetune",
    "freeze",
    "fuse",
    "generate",
    "interpolate",
    "interpolation_curve",
    "keep_blocks",
    "learning_curve",
    "load",
    "load_exported",
    "measure_batch_statistics",
    "messages",
    "meta",
    "objectives",
    "parameter_table",
    "plot_history",
    "predict",
    "presets",
    "rank_checkpoints",
    "select",
    "serve",
    "set_dropout",
    "show",
    "stages",
    "start_from_mean",
    "stream",
    "train_batch_statistics",
    "train_only",
    "tune",
    "zero_shot",
]
