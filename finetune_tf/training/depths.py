"""The stages of a model by their distance to its outputs."""

import re

import keras

from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import Stage, stages
from finetune_tf.training import select
from finetune_tf.training.selector import Selector


def stages_by_depth(model: keras.Model) -> list[list[Stage]]:
    """Returns the stages of a model in groups, from its outputs to its inputs.

    The first group is the head. Each further one is a block, with the pooler or the normalization
    above it; the last one contains the embeddings. In a model with several chains (encoder and
    decoder, two towers), a group has a block of each chain, counted from the top of the chain.

    Args:
        model: A built Keras model.

    Returns:
        Groups of stages. The first one is empty if the model has no head; the others are not.

    Example:
        >>> from finetune_tf.training.depths import stages_by_depth
        >>> [[stage.name for stage in group] for group in stages_by_depth(model)]
        [['classifier'], ['pooler', 'block_1'], ['block_0'], ['embeddings']]
    """
    groups: list[list[Stage]] = [[]]
    depth_in: dict[str, int] = {}
    for stage in reversed(stages(model)):
        if stage.role == "head":
            groups[0].append(stage)
            continue
        depth = depth_in.get(stage.chain, 1)
        while len(groups) <= depth:
            groups.append([])
        groups[depth].append(stage)
        if stage.role == "block":  # what stands above a block belongs to it
            depth_in[stage.chain] = depth + 1
    return groups


def selector_of(model: keras.Model, group: list[Stage]) -> Selector:
    """Returns a selector of stages that also works without the model: a regular expression."""
    wanted = {id(variable) for stage in group for variable in stage.variables}
    paths = [v.path for v in learnable_variables(model) if id(v) in wanted]
    layers = dict.fromkeys(path.partition("/")[0] for path in paths)
    pattern = f"^({'|'.join(map(re.escape, layers))})/"
    if {id(v) for v in select.matching(pattern).matches(model)} != wanted:
        pattern = f"^({'|'.join(map(re.escape, paths))})$"
    return select.matching(pattern, " | ".join(stage.name for stage in group))
