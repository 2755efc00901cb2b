# SPDX-License-Identifier: Apache-2.0
"""New tokens from a causal language model: greedy or drawn, with a cache, in one program.

The prompt goes through the model in one call, then a loop inside the program adds token after
token. There is one compilation for each (batch, prompt length, new tokens).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from efficient_layers.layers.lookup import check_tokens
from efficient_layers.measure.view import view

_NEVER = jnp.finfo(jnp.float32).min  # finite: no NaN where a row has one token left


def generate(
    model: nnx.Module,
    prompt: Int[Array, "b n"],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos: int | None = None,
    source: Any = None,
    rngs: nnx.Rngs | jax.Array | None = None,
) -> Int[Array, "b m"]:
    """The prompt with `max_new_tokens` tokens after it, (b, n + max_new_tokens).

    The model, one with `init_cache` and `decode` such as "gpt2" and "decoder", or with `encode` and
    `decode` as "seq2seq", is used in eval mode and not changed.

    Args:
      temperature: 0 takes the likeliest token; else tokens are drawn from softmax(logits /
        temperature).
      top_k: only the `top_k` likeliest tokens are drawn from.
      top_p: of those, only the likeliest whose probabilities sum to `top_p` at least (Holtzman et
        al., *The Curious Case of Neural Text Degeneration*, arXiv 1904.09751, section 3.1).
      eos: a token that ends its row, which is filled with it from there on; the program stops when
        all rows have ended.
      source: what a model with `encode` reads: tokens (b, n), or a pair of them and their mask.
      rngs: a key, or streams ("sample", else "default"); needed where the temperature is above 0.

    Raises:
      ValueError: settings out of range, no key, an empty prompt; more tokens than the model has
        positions; a model or layer that does not decode.

    References: temperature, top-k: Fan, Lewis and Dauphin, *Hierarchical Neural Story Generation*
    (arXiv 1805.04833), section 5.3. The order (temperature, top_k, top_p) is that of transformers.
    """
    _check_settings(max_new_tokens, temperature, top_k, top_p)
    _check(model, prompt, max_new_tokens, source)
    if temperature == 0:
        key, top_k, top_p = jax.random.key(0), None, None  # not used
    else:
        key = _key(rngs, temperature)
    graphdef, state = nnx.split(view(model))
    sampler = _Sampler(float(temperature), top_p, key)
    static = (graphdef, max_new_tokens, temperature > 0, top_k, eos)
    given = source if source is None or isinstance(source, tuple) else (source,)
    return run(static, state, jnp.asarray(prompt, jnp.int32), given, sampler)


class _Sampler(NamedTuple):
    """The settings that do not make another program."""

    temperature: float
    top_p: float | None
    key: jax.Array


class _Loop(NamedTuple):
    tokens: Int[Array, "b m"]
    at: Int[Array, ""]
    cache: Any
    ended: Array
    logits: Float[Array, "b v"]


@partial(jax.jit, static_argnums=0)
def run(
    static: Any, state: Any, prompt: Int[Array, "b n"], source: Any, sampler: _Sampler
) -> Int[Array, "b m"]:
    """The program: the prompt at once, then a loop."""
    graphdef, new, draws, top_k, eos = static
    model = nnx.merge(graphdef, state, copy=True)
    b, n = prompt.shape
    cache = model.encode(*source) if source else model.init_cache(b, n + new, piece=n)
    logits, cache = model.decode(prompt, cache, last=True)
    end = 0 if eos is None else eos
    tokens = jnp.concatenate([prompt, jnp.full((b, new), end, jnp.int32)], axis=1)

    def add(loop: _Loop) -> _Loop:
        token = jnp.argmax(loop.logits, -1)
        if draws:
            kept = filtered(loop.logits / sampler.temperature, top_k, sampler.top_p)
            token = jax.random.categorical(jax.random.fold_in(sampler.key, loop.at), kept)
        token = jnp.where(loop.ended, end, token.astype(jnp.int32))
        tokens = lax.dynamic_update_slice_in_dim(loop.tokens, token[:, None], loop.at, 1)
        ended = loop.ended if eos is None else loop.ended | (token == eos)
        return loop._replace(tokens=tokens, at=loop.at + 1, ended=ended)

    def step(loop: _Loop) -> _Loop:
        """The next logits from the newest token, then a token more."""
        token = lax.dynamic_slice_in_dim(loop.tokens, loop.at - 1, 1, 1)
        logits, cache = model.decode(token, loop.cache)
        return add(loop._replace(cache=cache, logits=logits[:, -1].astype(jnp.float32)))

    first = logits[:, -1].astype(jnp.float32)
    loop = add(_Loop(tokens, jnp.asarray(n, jnp.int32), cache, jnp.zeros(b, bool), first))
    more = lambda loop: (loop.at < n + new) & ~loop.ended.all()  # noqa: E731
    return lax.while_loop(more, step, loop).tokens


def filtered(
    logits: Float[Array, "*b v"], top_k: int | None = None, top_p: Any = None
) -> Float[Array, "*b v"]:
    """`logits`, those of tokens that top_k and then top_p leave out very low; ties stay in.

    The likeliest token always stays.
    """
    v = logits.shape[-1]
    k = v if top_k is None else min(top_k, v)
    if k == v and top_p is None:
        return logits
    best = lax.top_k(logits, k)[0] if k < v else -jnp.sort(-logits, axis=-1)
    least = best[..., -1:]
    if top_p is not None:
        p = jax.nn.softmax(best, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p
        kept = (before < top_p).at[..., 0].set(True)
        least = jnp.min(jnp.where(kept, best, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, _NEVER)


def _key(rngs: nnx.Rngs | jax.Array | None, temperature: float) -> jax.Array:
    if rngs is None:
        raise ValueError(
            f"generate with temperature={temperature} needs a key. Got rngs=None. "
            "Pass rngs=nnx.Rngs(0), or temperature=0 for the likeliest tokens."
        )
    return rngs.sample() if isinstance(rngs, nnx.Rngs) else rngs


def _check_settings(new: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    wrong = (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1)
    if wrong or temperature < 0 or new < 1:
        raise ValueError(
            "generate expects max_new_tokens >= 1, temperature >= 0, top_k >= 1 and 0 < top_p <= 1."
            f" Got {new}, temperature={temperature}, top_k={top_k}, top_p={top_p}."
        )


def _check(model: Any, prompt: Any, new: int, source: Any) -> None:
    begins = "init_cache" if source is None else "encode"
    if not hasattr(model, "decode") or not hasattr(model, begins):
        raise ValueError(
            "generate expects a model with init_cache and decode ('gpt2', 'decoder'), or with "
            f"encode and decode and a source ('seq2seq'). Got {type(model).__name__} and "
            f"{'no source' if source is None else 'a source'}."
        )
    if prompt.ndim != 2 or not prompt.size:
        raise ValueError(f"generate expects a prompt of shape (batch, n >= 1). Got {prompt.shape}.")
    most = getattr(model.config, "max_length", None)
    if most is not None and prompt.shape[1] + new > most:
        raise ValueError(
            f"{type(model).__name__} has {most} positions. Got a prompt of {prompt.shape[1]} and "
            f"{new} new tokens: shorten one of them."
        )
    check_tokens("generate", prompt, model.config.vocabulary)
