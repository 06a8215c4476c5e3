"""Plain Python values as JSON and arrays, so that a save needs no pickles."""

import collections
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.training.resuming.files import DTYPES

Arrays = dict[str, np.ndarray]


class NotPlainError(TypeError):
    """A value is neither a number, a text, an array, a generator nor a container of these."""


def pack(value: Any, arrays: Arrays) -> Any:
    """Converts a value to what JSON can hold.

    Args:
        value: None, a number, a text, a path, an array, a random generator, a function of
            keras.ops or NumPy, or a list, tuple, set, deque or dict of these.
        arrays: Gets the arrays of the value.

    Raises:
        NotPlainError: If the value contains something else.

    Example:
        >>> from finetune_tf.training.resuming.values import pack, unpack
        >>> arrays = {}
        >>> packed = pack({"best": (0.5, np.ones(2))}, arrays)
        >>> packed
        {'dict': [['best', {'tuple': [0.5, {'array': '0'}]}]]}
        >>> unpack(packed, arrays)
        {'best': (0.5, array([1., 1.]))}
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.name not in DTYPES:
            raise NotPlainError(f"an array of {value.dtype}")
        name = str(len(arrays))
        arrays[name] = np.asarray(value)
        return {"array": name} if isinstance(value, np.ndarray) else {"scalar": name}
    if type(value) is list:
        return [pack(item, arrays) for item in value]
    for kind in (tuple, set):
        if type(value) is kind:
            return {kind.__name__: [pack(item, arrays) for item in value]}
    if type(value) is collections.deque:
        return {"deque": [pack(item, arrays) for item in value], "maxlen": value.maxlen}
    if type(value) in (dict, collections.defaultdict, collections.OrderedDict):
        return {"dict": [[pack(k, arrays), pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, Path):
        return {"path": str(value)}
    return _pack_random(value, arrays)


def _pack_random(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, np.random.Generator):
        return {"generator": pack(value.bit_generator.state, arrays)}
    if isinstance(value, np.random.RandomState):
        return {"random_state": pack(value.get_state(), arrays)}
    if type(value) is random.Random:
        return {"random": pack(value.getstate(), arrays)}
    name = getattr(value, "__name__", None)
    for module, functions in (("keras.ops", keras.ops), ("numpy", np)):
        if name is not None and getattr(functions, name, None) is value:
            return {module: name}
    raise NotPlainError(f"an object of {type(value).__module__}.{type(value).__qualname__}")


def unpack(packed: Any, arrays: Arrays) -> Any:
    """Returns the value that `pack` converted.

    Args:
        packed: The result of `pack`.
        arrays: The arrays that `pack` filled.
    """
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    kind, content = next(iter(packed.items()))
    if kind == "array":
        return np.array(arrays[content])
    if kind == "scalar":
        return arrays[content][()]
    if kind == "tuple":
        return tuple(unpack(content, arrays))
    if kind == "set":
        return set(unpack(content, arrays))
    if kind == "deque":
        return collections.deque(unpack(content, arrays), packed["maxlen"])
    if kind == "dict":
        return {unpack(key, arrays): unpack(value, arrays) for key, value in content}
    if kind == "path":
        return Path(content)
    if kind == "generator":
        return _generator(unpack(content, arrays))
    if kind == "random_state":
        made = np.random.RandomState()
        made.set_state(unpack(content, arrays))
        return made
    if kind == "random":
        made = random.Random()
        made.setstate(unpack(content, arrays))
        return made
    return getattr({"keras.ops": keras.ops, "numpy": np}[kind], content)


def _generator(state: dict[str, Any]) -> np.random.Generator:
    kinds = {kind.__name__: kind for kind in np.random.BitGenerator.__subclasses__()}
    bits = kinds[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, arrays included."""
    left, right = {}, {}
    try:
        if pack(one, left) != pack(other, right):
            return False
    except NotPlainError:
        return one is other
    return all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )
