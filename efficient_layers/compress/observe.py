# SPDX-License-Identifier: Apache-2.0
"""Statistics of what goes into the layers of any model while batches run through it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from efficient_layers.compress.hooks import Hook, hooked
from efficient_layers.measure.view import call

Statistic = Callable[[jax.Array], Any]  # an array, or a tree of arrays
Record = Callable[[str, Any], None]


def observe(
    model: nnx.Module,
    statistics: Mapping[str, Statistic],
    batches: Iterable,
    record: Record,
    *,
    loss: Callable | None = None,
) -> int:
    """Runs `model` on `batches` in eval mode; how many there were.

    At every call of the module at a path of `statistics`, `record` is given the path and the
    statistic of the first argument, in float64 on the host; what is no array is passed over.
    A batch is given to `loss(model, batch)`, else to `model(batch)`. One compiled program; it works
    inside a scan or a remat.
    """

    def received(path: str, value: Any) -> None:
        record(path, jax.tree.map(lambda a: np.asarray(a, np.float64), value))

    def watching(path: str, statistic: Statistic) -> Hook:
        def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else next(iter(kwargs.values()))
            if hasattr(x, "ndim"):
                # A callback, not a list: what is seen inside a scan is a tracer.
                jax.debug.callback(partial(received, path), statistic(x))
            return call(*args, **kwargs)

        return hook

    watched = hooked(model, {path: watching(path, s) for path, s in statistics.items()})
    graphdef, state = nnx.split(watched)

    @jax.jit
    def run(state: Any, batch: Any) -> Any:
        module = nnx.merge(graphdef, state, copy=True)
        return call(module, batch) if loss is None else loss(module, batch)

    count = 0
    for batch in batches:
        try:
            jax.block_until_ready(run(state, batch))
        except (TypeError, ValueError) as error:
            shapes = jax.tree.map(lambda a: getattr(a, "shape", a), batch)
            way = "model(batch)" if loss is None else "loss(model, batch)"
            error.add_note(
                f"Calibration called {way} on batch {count} of data, of shapes {shapes}. A tuple "
                "means model(*batch); where a batch holds more than inputs, give apply loss=."
            )
            raise
        count += 1
    jax.effects_barrier()
    return count
