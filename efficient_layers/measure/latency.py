# SPDX-License-Identifier: Apache-2.0
"""How long a call takes: the one place in this project that times calls in a loop.

A number is a median over at least 30 warm calls, with inputs on the device and every result waited
for; compiling is timed apart. Machines are noisy: "faster" is a ratio of medians from one
`alternate`, with the threads of both sides set alike (`torch.set_num_threads`; XLA's CPU backend
takes the process's cores, see `environment()["cores"]` and `taskset`).
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.measure.environment import device_name
from efficient_layers.measure.program import Program, compiled_view
from efficient_layers.measure.view import call, view

# A budget in seconds never buys more calls than this.
MOST_CALLS = 10_000
REST_S = 0.01  # between the calls of two sides
# Beyond this p90 / p10 of a side, its median says more about the machine than about the code.
STEADY_SPREAD = 2.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a warm call. `calls` is how many were timed.

    `compile_s`: seconds to trace and compile; from `alternate`, seconds of the first call, whatever
    it did.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    compile_s: float
    device: str
    calls: int

    def to_json(self) -> dict[str, Any]:
        """Its fields as a JSON-able dict."""
        return asdict(self)


def latency(
    model_or_fn: nnx.Module | Callable | Program,
    x: Any = None,
    *,
    calls: int = 30,
    warmup: int = 3,
    budget_s: float | None = None,
    jit: bool = True,
) -> Latency:
    """Times `call(model_or_fn, x)`, jitted; a module in eval mode, its weights as arguments.

    Args:
      model_or_fn: a module (left as it is), a function of arrays, or what `compiled_view` made.
      x: its input; shapes (`jax.ShapeDtypeStruct`) are filled with noise.
      calls: calls timed, at the least.
      warmup: calls before, not timed.
      budget_s: goes on calling until so many seconds are spent; never fewer than `calls`.
      jit: False times a function as it is (it is not JAX, or has its own jit); `compile_s` is then
        the seconds of the first call.

    Raises:
      ValueError: the model is abstract (made by `nnx.eval_shape`), or `calls` is below 1.
    """
    if not jit and not isinstance(model_or_fn, Program):
        fn = view(model_or_fn) if isinstance(model_or_fn, nnx.Module) else model_or_fn
        timed = alternate(
            {"it": lambda: call(fn, x)}, calls=calls, warmup=warmup, budget_s=budget_s
        )
        return timed["it"]
    program = compiled_view(model_or_fn, x)
    seconds = sample(caller(program), calls=calls, warmup=warmup, budget_s=budget_s)
    return _summary(seconds, program.seconds)


def caller(program: Program) -> Callable[[], Any]:
    """A call of a compiled program without arguments, its inputs resident: for `alternate`.

    Raises:
      ValueError: the program is of an abstract model.
    """
    _refuse_abstract(program.leaves)
    leaves = jax.device_put(program.leaves)
    arrays = [jax.device_put(_filled(array)) for array in program.arrays]
    return lambda: program.compiled(leaves, arrays)


def alternate(
    callables: Mapping[str, Callable[[], Any]],
    *,
    calls: int = 30,
    warmup: int = 3,
    budget_s: float | None = None,
) -> dict[str, Latency]:
    """Times zero-argument callables in turn, A B A B ..., so that a slow minute slows all of them.

    Each call ends when its result is ready: JAX arrays are waited for, anything else has to block
    by itself. Between two sides the process rests for `REST_S`: OpenMP's threads (torch) spin for
    milliseconds after a call, on the cores that the next side needs. `budget_s` is for all
    together; every callable gets the same number of calls, at least `calls`.

    >>> times = alternate({"ours": lambda: None, "theirs": lambda: None}, calls=30)
    >>> sorted(times)
    ['ours', 'theirs']
    """
    seconds, first = _time(callables, calls, warmup, budget_s)
    return {name: _summary(seconds[name], first[name]) for name in callables}


def sample(
    fn: Callable[[], Any], *, calls: int = 30, warmup: int = 3, budget_s: float | None = None
) -> np.ndarray:
    """Seconds of each warm call of `fn`, float64 [calls]."""
    return _time({"it": fn}, calls, warmup, budget_s)[0]["it"]


def _time(
    callables: Mapping[str, Callable[[], Any]], calls: int, warmup: int, budget_s: float | None
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Seconds of every call, and of the first, untimed one, by name."""
    if calls < 1 or not callables:
        raise ValueError(
            f"timing expects calls >= 1 and a callable. Got {calls=}, {list(callables)}."
        )
    first = {name: _once(fn) for name, fn in callables.items()}
    for _ in range(warmup - 1):
        for fn in callables.values():
            _once(fn)
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    with _collector_paused():
        end, done = time.perf_counter() + (budget_s or 0.0), 0
        while done < calls or (time.perf_counter() < end and done < MOST_CALLS):
            for name, fn in callables.items():
                time.sleep(REST_S if len(callables) > 1 else 0.0)
                seconds[name].append(_once(fn))
            done += 1
    return {name: np.asarray(times) for name, times in seconds.items()}, first


def _once(fn: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keeps Python's garbage collector out of the measured calls."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _summary(seconds: np.ndarray, compile_s: float) -> Latency:
    p10, median, p90 = (float(v) for v in np.percentile(seconds * 1e3, [10, 50, 90]))
    return Latency(median, p10, p90, compile_s, device_name(), len(seconds))


def _refuse_abstract(leaves: list) -> None:
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise ValueError(
            "latency expects a model with weights. Got an abstract one (nnx.eval_shape): create "
            "it for real."
        )


def _filled(array: Any) -> Any:
    """`array`; a shape alone is filled with standard normal noise (zeros for integers)."""
    if not isinstance(array, jax.ShapeDtypeStruct):
        return array
    if jnp.issubdtype(array.dtype, jnp.floating):
        noise = np.random.default_rng(0).standard_normal(array.shape, np.float32)
        return jnp.asarray(noise, array.dtype)
    return jnp.zeros(array.shape, array.dtype)
