"""A checkpoint folder, read: family, config, tensors, and what its head was trained for."""

from dataclasses import dataclass
from pathlib import Path

from finetune_tf.checkpoints.family import Family
from finetune_tf.checkpoints.hub import resolve
from finetune_tf.checkpoints.registry import family_of
from finetune_tf.checkpoints.sentence_transformers import read_dense, read_pooling
from finetune_tf.checkpoints.tensors import Tensors, read_json, read_tensors


@dataclass(frozen=True)
class Checkpoint:
    """What `open_checkpoint` found.

    Attributes:
        folder: Where it lies.
        family: By its model_type.
        config: Complete.
        tensors: All, without task prefix.
        head: Of a trained head for the task; empty if there is none or none is wanted.
        pooling: That the checkpoint was trained with, or None if it does not say.
    """

    folder: Path
    family: Family
    config: dict
    tensors: Tensors
    head: Tensors
    pooling: str | None


def open_checkpoint(
    name: str | Path, task: str, revision: str | None = None, new_head: bool = False
) -> Checkpoint:
    """Finds a checkpoint and reads all of it but the weights' values.

    Args:
        name: A folder or a Hub id.
        task: Whose trained head to look for.
        revision: On the Hub.
        new_head: Whether a trained head is left where it is, whatever it is.

    Raises:
        CheckpointError: If it cannot be had, is damaged, or is of an unsupported kind.
    """
    folder = resolve(name, revision)
    raw = read_json(folder / "config.json")
    family = family_of(raw, folder / "config.json")
    prefix = f"{family.tensor_prefix}."
    tensors = {key.removeprefix(prefix): tensor for key, tensor in read_tensors(folder).items()}
    wanted = {row.tensor for row in family.heads[task]}
    head = {key: tensor for key, tensor in tensors.items() if key in wanted}
    return Checkpoint(
        folder=folder,
        family=family,
        config=family.complete(raw),
        tensors=tensors,
        head={} if new_head else head or read_dense(folder),
        pooling=read_pooling(folder),
    )
