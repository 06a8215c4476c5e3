"""Whether graphs are traced with kernels that other engines can run, for converters."""

import contextlib
import contextvars
from collections.abc import Iterator

_portable_only = contextvars.ContextVar("finetune_tf_portable_only", default=False)


@contextlib.contextmanager
def portable_only(is_wanted: bool = True) -> Iterator[None]:
    """Traces kernels without the reshapes that those for TensorFlow put around matrix products.

    Converters to ONNX and LiteRT merge such reshapes with others, and the engines then fail.

    Args:
        is_wanted: Whether the block is one of these.
    """
    token = _portable_only.set(is_wanted)
    try:
        yield
    finally:
        _portable_only.reset(token)


def wants_portable() -> bool:
    """Whether the code runs inside a block of `portable_only`."""
    return _portable_only.get()
