"""AdamW with PyTorch's arithmetic, groups of variables, and variables that join during a fit."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check, check_known, shown
from finetune_tf.base.keras_internals import optimized_variables, step_counter
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.messages import say
from finetune_tf.training.gradients import give_whole_gradients
from finetune_tf.training.groups import Key, VariableGroups
from finetune_tf.training.rates import RateGroups, Rates
from finetune_tf.training.selector import Selector

NO_DECAY = (r"(^|/|_)bias$", r"(^|/)(gamma|beta)$")  # biases and normalization layers


SMALLEST_NARROW = 4096  # fewest elements of a variable whose moments may be narrow


def checked_state_dtype(dtype: Any) -> str | None:
    """Returns the dtype of moments, or raises an error if they cannot have it."""
    if dtype not in (None, "float32", "bfloat16"):
        raise ArgumentError(
            f"state_dtype must be 'float32' or 'bfloat16', found {shown(dtype)}. It is the dtype "
            "in which AdamW stores its two moments."
        )
    if dtype == "bfloat16" and not hasattr(ops, "view"):
        raise ModelError(
            f"state_dtype='bfloat16' needs keras.ops.view, which Keras {keras.__version__} does "
            "not have: pip install --upgrade keras."
        )
    return dtype


def checked_state_memory(memory: Any) -> str | None:
    """Returns the memory of moments, or raises an error if they cannot be there."""
    if memory not in (None, "device", "host"):
        raise ArgumentError(
            f"state_memory must be 'device' or 'host', found {shown(memory)}. It is the memory in "
            "which AdamW keeps its two moments."
        )
    if memory == "host" and (reason := kernels.why_no_host_memory()):
        raise ModelError(
            f"state_memory='host' is not possible here: {reason}. Leave it out; "
            "state_dtype='bfloat16' halves the memory of the moments everywhere."
        )
    return memory


@keras.saving.register_keras_serializable("finetune_tf")
class AdamW(RateGroups, keras.optimizers.Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Differs from `keras.optimizers.AdamW` in several ways: epsilon is added where PyTorch adds it;
    the variables without weight decay are part of the config, so they survive saving and loading;
    gradients are summed over devices and repeated tokens before clipping; and variables may have
    learning rates of their own, as in the parameter groups of PyTorch.

    A variable that is unfrozen in the middle of a training starts with its own step 1. The bias
    correction of its first updates is then that of PyTorch's `add_param_group`.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Coefficient of the decoupled weight decay; each step subtracts
            `learning_rate * weight_decay * weight`.
        beta_1: Exponential decay rate of the first moment (mean of the gradients).
        beta_2: Exponential decay rate of the second moment (mean of the squared gradients).
        epsilon: Added to the square root of the second moment.
        no_decay: Variables without weight decay: a selector, or a list of selectors and regular
            expressions for their paths; by default biases and the parameters of normalization
            layers.
        state_dtype: "bfloat16" stores both moments of each variable of 4096 elements or more in 2
            instead of 4 bytes: for BERT base, 0.44 GB less. The arithmetic stays in float32. The
            second moment changes by a thousandth in a step, less than the distance of two numbers
            in bfloat16: rounded to the nearest number, it would stall. Both moments are therefore
            rounded up or down at random, with the right mean; the step of a weight then has a
            random error of about 3 %. On a CPU, an update takes about 1.4 times as long. By
            default, or with "float32", the moments have the dtype of the variables.
        state_memory: "host" keeps the moments of variables of 4096 elements or more in the memory
            of the host, and copies them to the device for the update of their variable: for BERT
            base, 0.88 GB less of a GPU's memory. It needs Keras on JAX and a device that reads such
            memory, as GPUs and TPUs do. Numbers stay the same. By default, moments are where the
            variables are.
        rates: Factors on the learning rate, by selector such as `ft.select.head()` or by regular
            expression. The first one that fits a variable is used; all other variables have the
            factor 1. `rate_factors` has the variables that hold the factors.
        **kwargs: Arguments of every Keras optimizer, such as `global_clipnorm`.

    Raises:
        ArgumentError: If a number is out of range, or `state_dtype` or `state_memory` is unknown. A
            factor is positive.
        ModelError: If a selector or a regular expression is invalid, or `state_memory="host"` is
            not possible on this backend or device.

    Example:
        >>> from finetune_tf.training import AdamW
        >>> rates = {ft.select.head(): 10.0, "embeddings": 0.5}
        >>> model.compile(AdamW(3e-5, weight_decay=0.1, global_clipnorm=1.0, rates=rates))
        >>> history = model.fit(train.batches(model), verbose=0)
        >>> {name: float(factor) for name, factor in model.optimizer.rate_factors.items()}
        {'head()': 10.0, 'embeddings': 0.5}
        >>> _ = model.optimizer.rate_factors["head()"].assign(5.0)  # from the next step on
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 5e-5,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        no_decay: Selector | Sequence[Key] = NO_DECAY,
        rates: Rates | None = None,
        state_dtype: str | None = None,
        state_memory: str | None = None,
        **kwargs: Any,
    ) -> None:
        check(weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
        check_known(**kwargs)
        if not callable(learning_rate):
            check(**{"AdamW.learning_rate": learning_rate})
            learning_rate = float(learning_rate)
        # If Keras knew the weight decay, it would apply it in a separate pass.
        super().__init__(learning_rate=learning_rate, weight_decay=None, **kwargs)
        self.decay = weight_decay
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.no_decay = tuple(VariableGroups.keys_from_config(_listed(no_decay)))
        self.state_dtype = checked_state_dtype(state_dtype)
        self.state_memory = checked_state_memory(state_memory)
        self._undecayed = VariableGroups(self.no_decay, "weight decay", is_exclusive=False)
        self._set_rates(rates)
        give_whole_gradients(self)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the first and second moment of each variable, and the factors of groups."""
        if self.built:
            return
        if self.state_memory == "host" and not kernels.is_host_memory_separate():
            say("state_memory='host' saves no memory on a CPU, whose memory is that of the host.")
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        self._decays = [
            self.decay if self._undecayed.index_of(v) is None else 0.0 for v in variables
        ]
        self._build_rates(variables)
        # The steps that were done before the training of each variable started.
        self._births = self.add_variable(
            (len(variables),),
            "zeros",
            dtype="float32",
            aggregation="only_first_replica",
            name="birth",
        )

    def add_variable(self, shape: tuple, *args: Any, **kwargs: Any) -> keras.Variable:
        """Creates a variable of the optimizer; large moments have their own dtype and memory."""
        is_moment = (kwargs.get("name") or "").endswith(("_momentum", "_velocity"))
        is_large = is_moment and math.prod(shape) >= SMALLEST_NARROW
        if self.state_dtype == "bfloat16" and is_large:
            kwargs["dtype"] = "bfloat16"
        variable = super().add_variable(shape, *args, **kwargs)
        if self.state_memory == "host" and is_large:
            kernels.keep_on_host(variable)
        return variable

    def resolve_groups(self, model: keras.Model) -> None:
        """Finds the variables of each group in a model; see `VariableGroups.resolve`."""
        super().resolve_groups(model)
        self._undecayed.resolve(model)

    def continue_from(self, others: Iterable["AdamW"]) -> None:
        """Starts the variables that no other optimizer trained at the current step.

        Args:
            others: The optimizers that trained the model so far, whose state this one continues.
        """
        births, now = {}, 0
        for other in others:
            births |= zip(map(id, optimized_variables(other)), other._births.numpy(), strict=True)
            now = max(
                now, int(step_counter(other).numpy()) // (other.gradient_accumulation_steps or 1)
            )
        self._births.assign([births.get(id(v), now) for v in optimized_variables(self)])

    def load_own_variables(self, store: Any) -> None:
        """Reads the variables from a file; one of an earlier version has no births."""
        if self.built and len(store.keys()) == len(self.variables) - 1:
            births = np.zeros(self._births.shape, "float32")
            store = dict(store.items()) | {str(len(self.variables) - 1): births}
        super().load_own_variables(store)

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Updates all variables in place."""
        if not self.built and trainable_variables is not None:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        # One of them suffices, since all depend on the batch.
        with kernels.waiting_for([g for g in grads if g is not None][-1:]):
            # Computed once for all variables: tracing the same subgraph for each one takes seconds.
            step = ops.cast(self.iterations + 1, "float32") - ops.cast(self._births, "float32")
            rates = self._rates_of_variables(self.learning_rate)
            numbers = kernels.adamw_numbers(step, rates, self._decays, *self._betas(), self.epsilon)
            seed = ops.cast(self.iterations, "uint32") if self.state_dtype == "bfloat16" else None
            self._step = _Step(numbers, seed)
            super().apply(grads, trainable_variables)
        self._step = None  # tensors of a graph must not be used after its trace

    def _clip_gradients(self, grads: list) -> list:
        """Leaves clipping by the global norm to the update, which reads all gradients anyway."""
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        norm = kernels.global_norm([gradient for gradient in grads if gradient is not None])
        self._step.scale = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return grads

    def _backend_update_step(self, grads: list, trainable_variables: list, rate: Any) -> None:
        """Updates all variables in place."""
        if kernels.updates_together():
            self._update(grads, trainable_variables)
        else:
            super()._backend_update_step(grads, trainable_variables, rate)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Updates one variable in place."""
        self._update([gradient], [variable])

    def _update(self, grads: list, variables: list) -> None:
        places = [self._get_variable_index(variable) for variable in variables]
        beta_1, beta_2 = self._betas()
        kernels.adamw_update(
            variables,
            [ops.cast(g, v.dtype) for g, v in zip(grads, variables, strict=True)],
            [self._momentums[i] for i in places],
            [self._velocities[i] for i in places],
            [self._step.numbers[i] for i in places],
            scale=self._step.scale,
            seed=self._step.seed,
            beta_1=beta_1,
            beta_2=beta_2,
        )

    def _betas(self) -> tuple[float, float]:
        """Returns the betas in the precision in which TensorFlow's kernel subtracts them from 1.

        The bias corrections have to be those of the same numbers: 1 - 0.999 is 1.3e-5 smaller in
        float32.
        """
        return float(np.float32(self.beta_1)), float(np.float32(self.beta_2))

    def get_config(self) -> dict:
        """Returns the Keras config."""
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "no_decay": self._undecayed.get_config(),
            **({"state_dtype": self.state_dtype} if self.state_dtype else {}),
            **({"state_memory": self.state_memory} if self.state_memory else {}),
            **self._rates_config(),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> "AdamW":
        """Creates an optimizer from its config, whose moments may have been in another memory."""
        config = dict(config)
        if config.get("state_memory") == "host" and (reason := kernels.why_no_host_memory()):
            say(f"The moments of AdamW are not kept in the memory of the host: {reason}.")
            del config["state_memory"]
        return super().from_config(config, custom_objects=custom_objects)


@dataclass
class _Step:
    """The numbers of the step that is computed or traced; not a list, which Keras would track."""

    numbers: list[tuple]
    seed: Any = None
    scale: Any = None


def _listed(keys: Selector | Sequence[Key]) -> list[Any]:
    return [keys] if isinstance(keys, Selector | str | Mapping) else list(keys)
