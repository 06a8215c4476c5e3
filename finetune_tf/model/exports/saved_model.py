"""SavedModels, for TensorFlow and TensorFlow Serving."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from finetune_tf.base.extras import require_package
from finetune_tf.model.exports.format import Engine, Format, Int8, Record
from finetune_tf.model.exports.graph import Graph

#: The function of a graph that reads texts which takes token ids instead.
TOKENS = "tokens"


def write(graph: Graph, folder: Path, int8: Int8 | None = None) -> None:
    """Writes all functions of a graph as signatures, the first one as "serving_default" too.

    Args:
        graph: The forward pass.
        folder: The folder.
        int8: Not given, since the format has no such weights.

    Raises:
        OSError: If the disk is full, among others.
    """
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(graph.model)
    for name, endpoint in graph.endpoints.items():
        archive.add_endpoint(name, endpoint.function, input_signature=[endpoint.signature])
    try:
        archive.write_out(folder, verbose=False)
    except tf.errors.OpError as error:  # TensorFlow raises it for a full disk, among others
        raise OSError(errno.EIO, re.sub(r"{{.*?}} ", "", error.message)) from None


def read(folder: Path, record: Record) -> Engine:
    """Opens a SavedModel as a function of arrays by name."""
    import tensorflow as tf

    if record.strings:
        require_package("tensorflow_text", "A graph that reads texts needs")
    with _without_strategy():
        loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures[TOKENS if record.strings else "serving_default"]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        _ = loaded  # owns the variables, which the function does not
        found = function(**{name: tf.constant(rows) for name, rows in inputs.items()})
        return {name: rows.numpy() for name, rows in found.items()}

    return run


@contextlib.contextmanager
def _without_strategy() -> Iterator[None]:
    """Suspends the strategy of the program, under which TensorFlow cannot run what it loads."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    tf.distribute.experimental_set_strategy(None)
    try:
        yield
    finally:
        tf.distribute.experimental_set_strategy(strategy)


FORMAT = Format(
    name="tf_saved_model",
    title="TensorFlow",
    files=("saved_model.pb", "fingerprint.pb", "variables", "assets"),
    write=write,
    read=read,
)
