"""The feature cache: the outputs of frozen stages are computed once, and the rest trains on them.

With the lower stages frozen, every epoch repeats the same forward pass through them. Its result can
be stored instead. The frozen part and the upper part share the model's weights, so training the
upper part trains the model.
"""

from pathlib import Path

import keras

from finetune_tf.base.paths import absolute
from finetune_tf.base.spelling import names_checked
from finetune_tf.data.feature_store import FeatureStore, Precision
from finetune_tf.errors import CacheError, ModelError
from finetune_tf.graph.splitting import split_model
from finetune_tf.graph.stages import require_model
from finetune_tf.graph.traces import traces_of
from finetune_tf.messages import say
from finetune_tf.model.feature_models import FeatureModel, PlainFeatureModel
from finetune_tf.model.feature_origin import Origin
from finetune_tf.model.finetune_model import FineTuneModel


@names_checked
def cache_features(
    model: keras.Model,
    folder: str | Path | None = None,
    precision: Precision | None = None,
) -> FeatureModel | PlainFeatureModel:
    """Splits a model above its frozen stages, whose outputs are then computed once and cached.

    Returns the upper part of the model: a Keras model that is compiled, fitted and fed like the
    whole one, in a fraction of the time. The two share their weights.

        ft.train_only(model, ft.select.head())
        learner = ft.cache_features(model)
        learner.compile()
        learner.fit(train.batches(learner, 32, shuffle=True), epochs=10)
        ft.evaluate(model, test)

    The first call of `batches` runs the frozen stages over the examples, without dropout, and
    prints the size of the result: one vector a text where texts are pooled below the cut, else one
    vector a token, without padding. It is stored under a hash of the inputs, of the frozen stages
    with their weights and config, and of the precision. So features of other data, or of another
    tokenizer, checkpoint or cut, are never mixed up.

    A model of several chains is split in each of them: either of two towers may be frozen, and a
    frozen encoder is cached below a decoder that is trained.

    Any other Functional Keras model can be split as well. It has no task that knows its data, so
    `PlainFeatureModel.features` converts its arrays to the inputs of the upper part:

        learner = ft.cache_features(network)
        learner.compile("adam", "mse")
        learner.fit(learner.features(x), y)

    Args:
        model: A model whose lowest stages, at least those of one chain, are frozen.
        folder: Stores features for later runs, or more of them than fit into memory; by default
            they are stored in memory.
        precision: "float32", or "bfloat16", which takes half the space and has three significant
            digits. By default the precision in which the model computes, so that nothing is lost.

    Returns:
        A `FeatureModel` for a model from `ft.load`, else a `PlainFeatureModel`.

    Raises:
        CacheError: If the lowest stages are trainable, nothing is, or the model has no graph.
        ModelError: If there is no such precision.

    Example:
        >>> _ = ft.train_only(model, ft.select.head())
        >>> upper = ft.cache_features(model)
        >>> inputs, labels = next(iter(train.batches(upper, 4)))
        >>> sorted(inputs)
        ['cached_features']
    """
    if precision not in (None, "float32", "bfloat16"):
        raise ModelError(f"Features are stored as 'float32' or 'bfloat16', found {precision!r}.")
    require_model(model)
    cut = split_model(model)
    if cut.blocking:
        say(
            f"{', '.join(cut.blocking)} learns and is used in several places, so frozen stages "
            "that read it are computed in every step and not stored."
        )
    if precision is None:
        is_bfloat16 = all(tensor.dtype == "bfloat16" for tensor in cut.trunk.outputs)
        precision = "bfloat16" if is_bfloat16 else "float32"
    model_class = FeatureModel if isinstance(model, FineTuneModel) else PlainFeatureModel
    upper = model_class(inputs=cut.inputs, outputs=cut.outputs, name=model.name)
    if isinstance(model, FineTuneModel):
        upper.info = model.info
    store = FeatureStore(folder and absolute(folder, CacheError), precision)
    upper._origin = Origin(model, cut.trunk, store)
    for part in (upper, cut.trunk):
        traces_of(part)  # so that changes of the layers reset their functions
    return upper
