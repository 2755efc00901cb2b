# SPDX-License-Identifier: Apache-2.0
"""Optimisers by name, each one an optax chain: clip -> update rule -> weight decay -> rate.

Config: `{name, learning_rate, weight_decay, weight_decay_mask, clip_norm, schedule: {name,
warmup, ...}, options: {...}}`; `options` go to the optax function of that name.

Weight decay is torch's of the same name: added to the gradient (L2) for `sgd momentum nesterov adam
rmsprop`, decoupled and multiplied by the learning rate (Loshchilov and Hutter, 2019, arXiv
1711.05101) for the rest. By default it leaves out biases and norms, i.e. every array with fewer
than two dimensions.

Shampoo and SOAP are not here: optax (0.2.8) has neither, and their preconditioners are not
re-implemented; asking for one says so.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
import optax.contrib

from efficient_layers.models.fields import nearest
from efficient_layers.train import schedule as schedules
from efficient_layers.train.mesh import array_name

_KEYS = ["name", "learning_rate", "weight_decay", "weight_decay_mask", "clip_norm"]
_KEYS += ["schedule", "options"]
_ABSENT = "optax 0.2.8 has no {}, and its matrix preconditioner is not re-implemented here; "
_ABSENT += "the nearest there is: 'muon' (also a whitened update for matrices), or 'adamw'"
_Mask = Callable[[Any], Any]
_Build = Callable[..., optax.GradientTransformation]


def optimizer(
    config: Mapping[str, Any],
    *,
    total_steps: int,
    steps_per_epoch: float = 1.0,
    batch_size: int = 1,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser that `config` describes, and its schedule (step -> learning rate).

    `weight_decay_mask` is None (arrays of two or more dimensions decay) or a regex: arrays in
    whose name (`mesh.array_name`, e.g. `blocks/0/conv/kernel`) it is found decay; `".*"` for all.

    Raises:
      ValueError: an unknown name, key or option; the nearest known one is named.
    """
    settings = {key: value for key, value in dict(config).items() if value is not None}
    for key in settings:
        if key not in _KEYS:
            raise ValueError(f"unknown optimizer key: {key!r}. {nearest(key, _KEYS)}")
    name = settings.get("name", "sgd_nesterov")
    if name in ("shampoo", "soap"):
        raise ValueError(f"optimizer {name!r}: " + _ABSENT.format(name) + ".")
    if name not in _BUILD:
        raise ValueError(f"unknown optimizer: {name!r}. {nearest(name, names())}")
    rate = _schedule(name, settings, total_steps, steps_per_epoch, batch_size)
    decay = float(settings.get("weight_decay", 0.0))
    mask = decay_mask(settings.get("weight_decay_mask"))
    build, takes = _BUILD[name]
    options = dict(settings.get("options", {}))
    _check_options(name, options, takes)
    tx = build(rate, decay, mask, **options)
    clip = float(settings.get("clip_norm", 0.0))
    return (optax.chain(optax.clip_by_global_norm(clip), tx) if clip else tx), rate


def optimizer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """`config.optimizer` as `optimizer` takes it: empty text stands for "not given"."""
    return settings | {"weight_decay_mask": settings["weight_decay_mask"] or None}


def names() -> list[str]:
    """Every optimiser that `optimizer` knows."""
    return sorted(_BUILD)


def decay_mask(pattern: str | None = None) -> _Mask:
    """params -> tree of bool, True where weight decay applies (see `optimizer`)."""
    if pattern is None:
        return lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    regex = re.compile(pattern)
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: regex.search(array_name(path)) is not None, params
    )


def eval_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate and to keep.

    `params` themselves, but for schedule-free optimisers the average x of the iterates, which
    is not where gradients are taken (Defazio et al., The Road Less Scheduled, 2024, arXiv
    2405.15682, section 2). Works under jit.
    """
    found = [
        s for s in jax.tree.leaves(opt_state, is_leaf=_is_schedule_free) if _is_schedule_free(s)
    ]
    return optax.contrib.schedule_free_eval_params(found[0], params) if found else params


def _is_schedule_free(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)


def _schedule(
    name: str, settings: Mapping[str, Any], total: int, per_epoch: float, batch: int
) -> optax.Schedule:
    config = dict(settings.get("schedule", {}))
    shape = config.get("name", "constant")
    if name.startswith("schedule_free") and shape != "constant":
        raise ValueError(
            f"optimizer {name!r} replaces the decay of the learning rate by averaging: use "
            f"schedule 'constant' with a warm-up. Got schedule {shape!r}."
        )
    if "learning_rate" not in settings:
        raise ValueError(f"optimizer {name!r} needs a learning_rate.")
    return schedules.schedule(
        config,
        learning_rate=float(settings["learning_rate"]),
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=batch,
    )


def _coupled(rule: _Build, **defaults: Any) -> _Build:
    """Decay as a term of the gradient: torch.optim.{SGD, Adam, RMSprop}."""

    def build(rate: Any, decay: float, mask: _Mask, /, **options: Any) -> Any:
        tx = rule(rate, **{**defaults, **options})
        return optax.chain(optax.add_decayed_weights(decay, mask), tx) if decay else tx

    return build


def _decoupled(rule: _Build) -> _Build:
    """Decay times the rate, beside the update: torch.optim.AdamW."""

    def build(rate: Any, decay: float, mask: _Mask, /, **options: Any) -> Any:
        return rule(rate, weight_decay=decay, mask=mask, **options)

    return build


def _after(rate: optax.Schedule, decay: float, mask: _Mask, tx: Any) -> Any:
    """Decay times the rate, added behind `tx` for rules that lack it or do it otherwise."""
    if not decay:
        return tx
    return optax.chain(tx, optax.add_decayed_weights(lambda step: -decay * rate(step), mask))


def _adafactor(rate: Any, decay: float, mask: _Mask, /, **options: Any) -> Any:
    """optax's own decay forgets the learning rate; here it is multiplied by it as in AdamW."""
    return _after(rate, decay, mask, optax.adafactor(rate, **options))


def _muon(rate: Any, decay: float, mask: _Mask, /, *, adam_params: str = "", **options: Any) -> Any:
    """Muon on weight matrices and on convolutions as [h w c_in, c_out]; Adam on the rest.

    The rest: biases, norms, depthwise kernels (they mix no channels), and what `adam_params` (a
    regex; default: embeddings and the classifier) finds, as its author does (Jordan, 2024). Both
    have the same decoupled decay; optax would leave Adam's share without.
    """
    regex = re.compile(adam_params or r"(^|/)(head|classifier|\w*embed\w*)(/|$)")

    def dimensions(path: tuple[Any, ...], p: Any) -> Any:
        if p.ndim not in (2, 4) or p.shape[-2] == 1 or regex.search(array_name(path)):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

    def tree(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(dimensions, params)

    muon = optax.contrib.muon(rate, muon_weight_dimension_numbers=tree, **options)
    return _after(rate, decay, mask, muon)


def _schedule_free(rule: Callable[..., optax.GradientTransformation]) -> _Build:
    """Averaging in place of a decay; the momentum of the inner rule is off, as it must be."""

    def build(
        rate: Any,
        decay: float,
        mask: _Mask,
        /,
        *,
        b1: float = 0.9,
        weight_lr_power: float = 2.0,
        **options: Any,
    ) -> Any:
        parts = [rule(**options), optax.add_decayed_weights(decay, mask)]
        inner = optax.chain(*parts, optax.scale_by_learning_rate(rate))
        return optax.contrib.schedule_free(inner, rate, b1=b1, weight_lr_power=weight_lr_power)

    return build


def _rms(*, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam's second moment alone, bias-corrected, epsilon outside of the root."""
    return optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True)


def _takes(rule: Callable[..., Any], *extra: str) -> list[str]:
    """The options of an optax function that a config may set."""
    ours = {"learning_rate", "mask", "muon_weight_dimension_numbers"}
    given = inspect.signature(rule).parameters
    return sorted({n for n in given if n not in ours and "weight_decay" not in n} | set(extra))


_SF = ("b1", "weight_lr_power")
_BUILD: dict[str, tuple[_Build, list[str]]] = {
    "sgd": (_coupled(optax.sgd), _takes(optax.sgd)),
    "momentum": (_coupled(optax.sgd, momentum=0.9), _takes(optax.sgd)),
    "sgd_nesterov": (_coupled(optax.sgd, momentum=0.9, nesterov=True), _takes(optax.sgd)),
    "adam": (_coupled(optax.adam), _takes(optax.adam)),
    "rmsprop": (_coupled(optax.rmsprop), _takes(optax.rmsprop)),
    "adamw": (_decoupled(optax.adamw), _takes(optax.adamw)),
    "lion": (_decoupled(optax.lion), _takes(optax.lion)),
    "lamb": (_decoupled(optax.lamb), _takes(optax.lamb)),
    "adafactor": (_adafactor, _takes(optax.adafactor)),
    "muon": (_muon, _takes(optax.contrib.muon, "adam_params")),
    "schedule_free_sgd": (_schedule_free(optax.identity), list(_SF)),
    "schedule_free_adamw": (_schedule_free(_rms), [*_SF, "b2", "eps"]),
}
_BUILD["nesterov"] = _BUILD["sgd_nesterov"]
_BUILD["schedule_free"] = _BUILD["schedule_free_adamw"]


def _check_options(name: str, options: Mapping[str, Any], known: list[str]) -> None:
    for key in options:
        if key not in known:
            hint = nearest(key, known)
            raise ValueError(f"unknown option of optimizer {name!r}: {key!r}. {hint}")
