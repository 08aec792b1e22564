"""A model on its way: all that changes from step to step, and the step, which is one tape.

Everything here goes into a checkpoint and comes back from it, so that N steps and k steps, a
restart and N - k more give the same bits.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from numtape.compiler import Compiled, compile
from numtape.optim import AdamW, Optimizer, clip_grad_norm_, schedules
from numtape.tracer import random
from numtape.tracer.recorder import no_grad
from numtape.training.errors import CheckpointError, TrainingError
from numtape.training.options import Options
from numtape.training.stored import short
from numtape.training.tasks import Model, Task

Arrays = dict[str, np.ndarray]
AVERAGE_EVERY = 10


class Trainer:
    """A task with its optimizer, the number of steps made, and the losses so far."""

    def __init__(self, task: Task, options: Options) -> None:
        self.task, self.options = task, options
        self.steps = 0
        self.losses: list[float] = []
        self.validation: list[tuple[int, float]] = []
        self.optimizer = make_optimizer(task.model, options)
        self.average = Average(task.model, round(options.steps * (1 - options.average)))
        self.step = compile_step(task, self.optimizer, options)
        self.judge = compile(task.loss)

    @property
    def tracing(self) -> float:
        """The seconds that tapes of the step have taken to make so far."""
        return sum(tape.milliseconds for tape in self.step.tapes) / 1e3

    def advance(self) -> int:
        """One step on the batch that is due; the number of its tokens.

        Raises TrainingError where the loss is no longer a number.
        """
        batch = self.task.batch(self.steps)
        loss = float(self.step(*batch).numpy())
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.steps + 1}; start again with a lower --lr, a "
                "longer --warmup or a lower --clip"
            )
        self.steps += 1
        self.losses.append(loss)
        self.average.update(self.steps)
        return self.task.tokens(batch)

    def validate(self) -> float:
        """The validation loss, noted with the step."""
        mean = self.validation_loss()
        self.validation.append((self.steps, mean))
        return mean

    def validation_loss(self) -> float:
        """The mean loss of a token on the validation batches."""
        batches = self.task.validation
        self.task.model.eval()
        try:
            with no_grad():
                losses = [float(self.judge(*batch).numpy()) for batch in batches]
        finally:
            self.task.model.train()
        return float(np.average(losses, weights=[self.task.tokens(b) for b in batches]))

    def use_average(self) -> bool:
        """Give the model the mean of its parameters, for use; whether there is one."""
        if self.average.count:
            self.task.model.load_state_dict(self.average.mean)
        return bool(self.average.count)

    # ---- to a checkpoint and back ------------------------------------------------------------

    def state(self) -> Arrays:
        """Every array that the next step depends on, and the losses."""
        return {
            **_prefixed("model", self.task.model.state_dict()),
            **_prefixed("optimizer", self.optimizer.state_dict()),
            **_prefixed("average", self.average.state()),
            "random": random.default.state.numpy().copy(),
            "losses": np.array(self.losses, np.float64),
            "validation": np.array(self.validation, np.float64).reshape(-1, 2),
        }

    def load(self, arrays: Arrays, steps: int) -> None:
        """Go on from a state after so many steps; raises CheckpointError if it does not fit."""
        try:
            self.task.model.load_state_dict(section(arrays, "model"))
            self.optimizer.load_state_dict(section(arrays, "optimizer"))
            random.default.state.assign(arrays["random"])
            self.losses = _sequence(arrays["losses"], (steps,)).tolist()
            validation = _sequence(arrays["validation"], (len(arrays["validation"]), 2))
            self.validation = [(int(at), float(loss)) for at, loss in validation]
            self.average.load(section(arrays, "average"), steps)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise CheckpointError(
                f"the checkpoint is not of this model: {short(error)}; give another run's folder"
            ) from error
        self.steps = steps


class Average:
    """The mean of the parameters from step `start` on, taken every few steps."""

    def __init__(self, model: Model, start: int) -> None:
        self.model, self.start = model, start
        self.count = 0
        self.mean: Arrays = {}

    def update(self, steps: int) -> None:
        if steps <= self.start or steps % AVERAGE_EVERY:
            return
        self.count += 1
        for name, tensor in self.model.state_tensors().items():
            mean = self.mean.setdefault(name, np.zeros(tensor.shape, tensor.dtype))
            mean += (tensor.numpy() - mean) / self.count

    def state(self) -> Arrays:
        return {**self.mean, "count": np.array(self.count)} if self.count else {}

    def load(self, state: Arrays, steps: int) -> None:
        # A run that was made longer may not have come to its last part yet.
        if state and steps > self.start:
            count = int(state.pop("count"))
            wanted = {n: (t.shape, t.dtype) for n, t in self.model.state_tensors().items()}
            if count < 1 or wanted != {n: (a.shape, a.dtype) for n, a in state.items()}:
                raise ValueError("its average is of other parameters")
            self.count, self.mean = count, state


def _sequence(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(f"its losses are {array.dtype}{array.shape}, not float64{shape}")
    return array


def section(arrays: Arrays, name: str) -> Arrays:
    """The arrays whose names begin with `name`, without it."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def _prefixed(name: str, arrays: Arrays) -> Arrays:
    return {f"{name}.{key}": array for key, array in arrays.items()}


# ---- the step -----------------------------------------------------------------------------


def compile_step(task: Task, optimizer: Optimizer, options: Options) -> Compiled:
    """Forward, reverse and update as one compiled function of a batch."""
    parameters = list(task.model.parameters())

    def training_step(*batch: Any) -> Any:
        loss = task.loss(*batch)
        optimizer.zero_grad()
        loss.backward()
        if options.clip:
            clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        return loss

    return compile(training_step)


def make_optimizer(model: Model, options: Options) -> Optimizer:
    """AdamW under the schedule; only matrices decay (as in GPT-3: Brown et al., 2020)."""
    groups: Iterable[Any] = model.parameters()
    if options.weight_decay:
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    schedule = make_schedule(options)
    return AdamW(groups, schedule, options.betas, weight_decay=options.weight_decay)


def make_schedule(options: Options) -> Callable[[Any], Any]:
    """The learning rate as a function of the step, `lr` at its highest."""
    if options.schedule == "constant":
        return schedules.constant(options.lr)
    if options.schedule == "paper":
        factor = options.lr * (options.d_model * options.warmup) ** 0.5
        return schedules.inverse_square_root(options.d_model, options.warmup, factor)
    total = max(options.steps, options.warmup + 1)
    return schedules.warmup_cosine(options.lr, options.warmup, total, options.min_lr)
