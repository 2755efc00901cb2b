# SPDX-License-Identifier: Apache-2.0
"""Cases of LSTM, GRU, MinGRU and DiagonalSSM: position by position, in complex numbers."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array, linear


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sequences(one, x):
    flat = x.reshape(-1, *x.shape[-2:])
    y = np.stack([one(tokens) for tokens in flat])
    return y.reshape(*x.shape[:-1], y.shape[-1])


def product(module, kind, x):
    y = array(getattr(module, f"weight_{kind}_l0")) @ x
    bias = getattr(module, f"bias_{kind}_l0")
    return y if bias is None else y + array(bias)


def lstm(module, x):
    def one(tokens):
        h, c, y = np.zeros(module.hidden_features), 0, []
        for token in tokens:
            i, f, g, o = np.split(product(module, "ih", token) + product(module, "hh", h), 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            y.append(h)
        return np.stack(y)

    return sequences(one, x)


def gru(module, x):
    def one(tokens):
        h, y = np.zeros(module.hidden_features), []
        for token in tokens:
            xr, xz, xn = np.split(product(module, "ih", token), 3)
            hr, hz, hn = np.split(product(module, "hh", h), 3)
            z = sigmoid(xz + hz)
            h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
            y.append(h)
        return np.stack(y)

    return sequences(one, x)


def min_gru(module, x):
    def one(tokens):
        h, y = 0, []
        for token in tokens:
            z, u = sigmoid(linear(module.gate, token)), linear(module.candidate, token)
            h = (1 - z) * h + z * np.where(u >= 0, u + 0.5, sigmoid(u))
            y.append(h)
        return np.stack(y)

    return sequences(one, x)


def ssm(module, x):
    size = module.state_features
    decay, phase = np.exp(array(module.log_decay)), np.exp(array(module.log_phase))
    transition = np.exp(-decay + 1j * phase)
    inward, outward = array(module.inward), array(module.outward)
    inward = inward[:, :size] + 1j * inward[:, size:]
    outward = outward[:size] - 1j * outward[size:]

    def one(tokens):
        h, y = np.zeros(size, complex), []
        for token in tokens:
            h = transition * h + np.exp(array(module.log_scale)) * (token @ inward)
            y.append((h @ outward).real + array(module.skip) * token)
        return np.stack(y)

    return sequences(one, x)


CASES = [
    Case(layers.LSTM, (3, 4), x=(2, 5, 3), y=(2, 5, 4), oracle=lstm),
    Case(
        layers.LSTM,
        (4, 2),
        {"use_bias": False},
        x=(1, 2, 3, 4),
        y=(1, 2, 3, 2),
        name="no bias",
        oracle=lstm,
    ),
    Case(layers.GRU, (3, 4), x=(2, 5, 3), y=(2, 5, 4), oracle=gru),
    Case(
        layers.GRU,
        (4, 2),
        {"use_bias": False},
        x=(1, 2, 3, 4),
        y=(1, 2, 3, 2),
        name="no bias",
        oracle=gru,
    ),
    Case(layers.MinGRU, (3, 4), x=(2, 5, 3), y=(2, 5, 4), oracle=min_gru),
    Case(
        layers.MinGRU,
        (4, 2),
        {"use_bias": False},
        x=(1, 2, 3, 4),
        y=(1, 2, 3, 2),
        name="no bias",
        oracle=min_gru,
    ),
    Case(layers.DiagonalSSM, (3, 4), x=(2, 5, 3), y=(2, 5, 3), oracle=ssm),
    Case(
        layers.DiagonalSSM,
        (4, 2),
        {"r_min": 0.0, "r_max": 0.5, "max_phase": 0.3},
        x=(1, 2, 3, 4),
        y=(1, 2, 3, 4),
        name="short memory",
        oracle=ssm,
    ),
]
