# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules by name: a warm-up, then one of seven shapes.

Config: `{name, warmup, ...}`; `learning_rate` is the peak. Durations take every unit of
duration.py, percent being of `total_steps`. With warm-up `w` and `T` steps in all, let
`u = (t - w) / (T - w)` run from 0 to 1 after the warm-up; `final` is a share of the peak:

    constant      1
    cosine        final + (1 - final) * (1 + cos(pi u)) / 2
    linear        1 - (1 - final) * u
    wsd           1, then over the last `decay` (default 20%) linear to `final`
                  (`shape="sqrt"`: 1 - (1 - final) * sqrt(v), v the share of the decay done)
    step          factor ** (number of `boundaries` passed), or one drop every `every`
    exponential   rate ** ((t - w) / every), in stairs with `staircase=True`
    rsqrt         sqrt(timescale / (timescale + t - w)), then `cooldown` linear to 0 at the end

A warm-up is the straight line from `peak / (w + 1)` at step 0 (not 0: no step is wasted) to the
peak at step `w`. An option that is None counts as not given.

References: cosine: Loshchilov and Hutter, SGDR, 2017 (arXiv 1608.03983), section 3; wsd: Hu et
al., MiniCPM, 2024 (arXiv 2404.06395), section 4, and Hägele et al., 2024 (arXiv 2405.18392) for
the 1 - sqrt shape; rsqrt with cool-down: Zhai et al., Scaling Vision Transformers, 2022 (arXiv
2106.04560), section 3.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from efficient_layers.models.fields import nearest
from efficient_layers.train import duration

_Shape = Callable[[Any], Any]  # steps since the warm-up ended -> share of the peak


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a shape needs to know: the steps of the warm-up, those after it, and the units."""

    warmup: int
    span: int
    count: Callable[[int | str], int]

    def length(self, name: str, value: int | str) -> int:
        steps = self.count(value)
        if steps < 1:
            raise ValueError(f"{name} must be at least one step. Got {value!r}.")
        return steps


def schedule(
    config: Mapping[str, Any],
    *,
    learning_rate: float,
    total_steps: int,
    steps_per_epoch: float = 1.0,
    batch_size: int = 1,
) -> optax.Schedule:
    """The schedule named by `config`: step (int or traced) -> learning rate, float32.

    Raises:
      ValueError: unknown name or option (the nearest is named), or lengths beyond `total_steps`.
    """
    options = {key: value for key, value in dict(config).items() if value is not None}
    name = options.pop("name", "constant")
    if name not in _SHAPES:
        raise ValueError(f"unknown schedule: {name!r}. {nearest(name, names())}")
    count = functools.partial(
        duration.steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        total_steps=total_steps,
    )
    warmup = count(options.pop("warmup", 0))
    if warmup > total_steps:
        raise ValueError(f"the warm-up takes {warmup} steps, the whole run has {total_steps}.")
    build, allowed = _SHAPES[name]
    for key in options:
        if key not in allowed:
            hint = nearest(key, ["warmup", *allowed])
            raise ValueError(f"unknown option of schedule {name!r}: {key!r}. {hint}")
    shape = build(_Run(warmup, max(total_steps - warmup, 1), count), **options)

    def rate(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        rising = (step + 1) / (warmup + 1)
        share = jnp.where(step < warmup, rising, shape(jnp.maximum(step - warmup, 0.0)))
        return jnp.float32(learning_rate) * share

    return rate


def names() -> list[str]:
    """Every schedule that `schedule` knows."""
    return sorted(_SHAPES)


def _constant(run: _Run) -> _Shape:
    return jnp.ones_like


def _cosine(run: _Run, *, final: float = 0.0) -> _Shape:
    def shape(t: Any) -> Any:
        u = jnp.minimum(t / run.span, 1.0)
        return final + (1 - final) * (1 + jnp.cos(math.pi * u)) / 2

    return shape


def _linear(run: _Run, *, final: float = 0.0) -> _Shape:
    return lambda t: 1 - (1 - final) * jnp.minimum(t / run.span, 1.0)


def _wsd(
    run: _Run, *, decay: int | str = "20%", final: float = 0.0, shape: str = "linear"
) -> _Shape:
    length = run.count(decay)
    if length > run.span:
        raise ValueError(f"wsd decays over {length} steps, after the warm-up {run.span} are left.")
    if shape not in ("linear", "sqrt"):
        raise ValueError(f"wsd's shape is 'linear' or 'sqrt'. Got {shape!r}.")
    power = 0.5 if shape == "sqrt" else 1.0

    def share(t: Any) -> Any:
        v = jnp.clip((t - (run.span - length)) / max(length, 1), 0.0, 1.0)
        return 1 - (1 - final) * v**power

    return share


def _step(
    run: _Run,
    *,
    boundaries: Sequence[int | str] = (),
    every: int | str | None = None,
    factor: float = 0.1,
) -> _Shape:
    """Boundaries count from step 0 of the run, `every` from the end of the warm-up."""
    if bool(boundaries) == (every is not None):
        raise ValueError("schedule 'step' needs either boundaries=[...] or every=..., not both.")
    if every is not None:
        length = run.length("every", every)
        return lambda t: factor ** jnp.floor(t / length)
    edges = jnp.asarray([run.count(b) - run.warmup for b in boundaries], jnp.float32)
    return lambda t: factor ** jnp.sum(t >= edges).astype(jnp.float32)


def _exponential(
    run: _Run, *, rate: float | None = None, every: int | str = "1 epoch", staircase: bool = False
) -> _Shape:
    if rate is None:
        raise ValueError("schedule 'exponential' needs rate=..., the factor for each `every`.")
    length, rate = run.length("every", every), float(rate)
    return lambda t: rate ** (jnp.floor(t / length) if staircase else t / length)


def _rsqrt(run: _Run, *, timescale: int | str = 10_000, cooldown: int | str = 0) -> _Shape:
    scale, length = run.length("timescale", timescale), run.count(cooldown)

    def shape(t: Any) -> Any:
        falling = jnp.clip((run.span - t) / length, 0.0, 1.0) if length else 1.0
        return jnp.sqrt(scale / (scale + t)) * falling

    return shape


_SHAPES: dict[str, tuple[Callable[..., _Shape], list[str]]] = {
    "constant": (_constant, []),
    "cosine": (_cosine, ["final"]),
    "linear": (_linear, ["final"]),
    "wsd": (_wsd, ["decay", "final", "shape"]),
    "step": (_step, ["boundaries", "every", "factor"]),
    "exponential": (_exponential, ["rate", "every", "staircase"]),
    "rsqrt": (_rsqrt, ["timescale", "cooldown"]),
}
