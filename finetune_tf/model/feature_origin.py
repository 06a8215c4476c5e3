"""What the upper part of a model was split from, and the state that its features depend on."""

import functools
import hashlib
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from finetune_tf._version import __version__
from finetune_tf.base.adapter_records import adapters_recorded
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.data.feature_store import FeatureStore
from finetune_tf.errors import ModelError
from finetune_tf.graph.digests import digest_of_weights
from finetune_tf.graph.splitting import independent_parts
from finetune_tf.graph.stages import stages

# By the id of batches or arrays of features, a reference to them and the state of the trunk that
# computed them; of all models, since batches of one may be given to another.
_KNOWN: dict[int, tuple[weakref.ref, str]] = {}


@dataclass(frozen=True, eq=False)
class Origin:
    """What an upper part was split from; in a record, since Keras tracks models in attributes.

    Attributes:
        whole: The model that was split.
        trunk: Its frozen part; the outputs are a dict.
        store: Stores the outputs of the trunk.
        computed: The state of the trunk with which features were computed last, if they were.
    """

    whole: keras.Model
    trunk: keras.Model
    store: FeatureStore
    computed: list[str] = field(default_factory=list)

    @functools.cached_property
    def parts(self) -> list[keras.Model]:
        """The parts of the trunk that have no input in common, such as two towers."""
        return independent_parts(self.trunk)

    def refuse_trainable_trunk(self) -> None:
        """Raises a ModelError if a stage of the trunk is trainable by now."""
        learning = [s.name for s in stages(self.trunk) if any(v.trainable for v in s.variables)]
        if learning:
            raise ModelError(
                f"{', '.join(learning)} learn by now, but are below the cut, where features are "
                "computed once. Freeze them, or cut again: ft.cache_features(model)."
            )

    def state(self) -> str:
        """Returns a hash of what changes features of the same rows: weights and active adapters."""
        adapters = [getattr(part, "active_adapters", ()) for part in all_layers(self.trunk)]
        return digest_of_weights(self.trunk, about=repr(adapters))

    def remember(self, data: Any) -> None:
        """Remembers batches or an array of the features that were computed last."""
        for key in [key for key, (reference, _) in _KNOWN.items() if reference() is None]:
            del _KNOWN[key]
        _KNOWN[id(data)] = weakref.ref(data), self.computed[0]

    def refuse_stale_features(self, data: Any, *others: Any) -> None:
        """Raises a ModelError if features were not computed by the trunk as it is now.

        Args:
            data: Batches, or arrays. If they are not known, because they were made of others, the
                features that were computed last count.
            *others: More of both, or anything else, which counts if it is known.
        """
        found = (_states_of(data) or set(self.computed)) | _states_of(others)
        if found and found != {self.state()}:
            raise ModelError(
                "The weights below the cut have changed since features were computed with them, "
                "other adapters are active there, or the features are those of another model. "
                "Compute them again: learner.fit(train.batches(learner, 32, shuffle=True))."
            )

    def key(self, config: Any, digests: Mapping[str, Sequence[bytes]]) -> str:
        """Returns a hash of all that cached features depend on.

        Args:
            config: The config of the whole model, besides those of its layers.
            digests: The hashes of the rows of each input by name; see `digests_of`.
        """
        digest = hashlib.sha256()
        with adapters_recorded():
            layers = [layer.get_config() for layer in self.trunk.layers]
        settings = [__version__, self.store.precision, config, layers]
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        self.computed[:] = [self.state()]
        digest.update(self.computed[0].encode())
        for name, rows in sorted(digests.items()):
            digest.update(name.encode())
            digest.update(b"".join(rows))
        return digest.hexdigest()[:32]


def _states_of(data: Any) -> set[str]:
    """The states of the trunks that computed the features in batches or arrays that are known."""
    parts = keras.tree.flatten(data)
    found = [(part, *_KNOWN[id(part)]) for part in parts if id(part) in _KNOWN]
    return {state for part, reference, state in found if reference() is part}
