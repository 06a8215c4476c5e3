"""Old names of the modules that version 0.1 had elsewhere, available for one more version.

On the first access to an attribute, an old name imports the new module and emits a
DeprecationWarning.
"""

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

MOVED = {
    "arguments": "base.arguments",
    "checked": "model.checked",
    "checkpoints.albert": "families.albert",
    "checkpoints.bert": "families.bert",
    "checkpoints.config_values": "families.config_values",
    "checkpoints.conversions": "weights.conversions",
    "checkpoints.deberta": "families.deberta",
    "checkpoints.deberta_v2": "families.deberta_v2",
    "checkpoints.deferred": "weights.deferred",
    "checkpoints.distilbert": "families.distilbert",
    "checkpoints.electra": "families.electra",
    "checkpoints.family": "families.family",
    "checkpoints.gte": "families.gte",
    "checkpoints.modernbert": "families.modernbert",
    "checkpoints.mpnet": "families.mpnet",
    "checkpoints.nomic_bert": "families.nomic_bert",
    "checkpoints.registry": "families.registry",
    "checkpoints.roberta": "families.roberta",
    "checkpoints.rotary": "families.rotary",
    "checkpoints.tensors": "weights.tensors",
    "checkpoints.weight_files": "weights.files",
    "checkpoints.weight_matching": "weights.matching",
    "checkpoints.weight_writing": "weights.writing",
    "checkpoints.weights": "weights.table",
    "data.answers": "data.answer_columns",
    "data.arrays": "data.sources.arrays",
    "data.building": "data.sources.building",
    "data.csv_files": "data.sources.csv_files",
    "data.dropping": "data.sources.dropping",
    "data.excel": "data.sources.excel",
    "data.huggingface": "data.sources.huggingface",
    "data.json_lines": "data.sources.json_lines",
    "data.label_inference": "data.sources.label_inference",
    "data.label_lists": "data.sources.label_lists",
    "data.label_values": "data.sources.label_values",
    "data.paths": "data.sources.paths",
    "data.plans": "data.batch_plans",
    "data.stored": "data.feature_store",
    "data.text_files": "data.sources.text_files",
    "data.tfds": "data.sources.tfds",
    "encodings": "model.encoding_model",
    "evaluation.answer_baselines": "evaluation.baselines.answers",
    "evaluation.answer_measures": "evaluation.evaluators.answers",
    "evaluation.answer_scores": "evaluation.evaluators.answer_scores",
    "evaluation.features": "evaluation.baselines.tfidf",
    "evaluation.mask_measures": "evaluation.evaluators.masks",
    "evaluation.measure": "evaluation.evaluators.evaluator",
    "evaluation.measures": "evaluation.evaluators.registry",
    "evaluation.running": "model.inference",
    "evaluation.similarity_measures": "evaluation.evaluators.similarity",
    "evaluation.text_measures": "evaluation.evaluators.text",
    "evaluation.token_measures": "evaluation.evaluators.tokens",
    "explained": "model.explained",
    "exporting": "model.exporting",
    "feature_cache": "model.feature_cache",
    "files": "base.files",
    "hidden_states": "graph.hidden_states",
    "inputs": "model.inputs",
    "interruption": "base.interruption",
    "json_files": "base.json_files",
    "keras_internals": "base.keras_internals",
    "kernels.recomputing": "kernels.remat",
    "labels": "base.labels",
    "loading": "model.loading",
    "model_info": "model.model_info",
    "paths": "base.paths",
    "pieces": "graph.pieces",
    "return_tensors": "checkpoints.return_tensors",
    "roles": "graph.roles",
    "run_folder": "recipe.run_folder",
    "saving": "model.saving",
    "spelling": "base.spelling",
    "stages": "graph.stages",
    "targets": "model.targets",
    "task_inference": "tasks.task_inference",
    "tasks.chunks": "tasks.entity_spans",
    "traces": "graph.traces",
    "training.halves": "graph.splitting",
    "training.pairs": "training.similarity_loss",
    "training.weights": "training.sample_weights",
    "untrained": "training.untrained",
    "values": "base.values",
    "vocabulary": "model.vocabulary",
    "weighted": "model.weighted",
}


class _OldModule(ModuleType):
    """A module in `sys.modules` under an old name that forwards attributes to the new module.

    An import hook would not work: importing `finetune_tf.stages` would then replace the function
    `finetune_tf.stages` by a module.
    """

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"The old name of {new}.")
        self._new = new

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself looks for these, for example in inspect
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        text = (
            f"{self.__name__} is now {self._new}; the old name will be removed in the next version."
        )
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(self._new), name)


def install(package: str) -> None:
    """Makes the old names importable.

    Args:
        package: The name of this package, "finetune_tf".
    """
    for old, new in MOVED.items():
        name = f"{package}.{old}"
        sys.modules.setdefault(name, _OldModule(name, f"{package}.{new}"))
