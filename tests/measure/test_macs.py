# SPDX-License-Identifier: Apache-2.0
"""MACs of single products against counting loops and torch's own counter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.measure.cost import cost

F32 = jnp.float32


def shape(*sizes, dtype=F32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def macs(fn, *arrays):
    return cost(fn, arrays, batch_axis=None).macs


def conv_by_loops(batch, out, kernel, in_per_group, features, keep=lambda *_: True):
    """Counts multiply-accumulates one by one; `keep(position, tap)` says whether a pair counts."""
    pairs = itertools.product(np.ndindex(*out), np.ndindex(*kernel))
    return batch * features * in_per_group * sum(keep(o, k) for o, k in pairs)


@pytest.mark.fast
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolution(groups, stride, dilation):
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            "SAME",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    out = (-(-7 // stride), -(-5 // stride))
    expected = conv_by_loops(2, out, (3, 2), 6 // groups, 12)
    assert macs(conv, shape(2, 7, 5, 6), shape(3, 2, 6 // groups, 12)) == expected


@pytest.mark.fast
def test_convolution_in_other_layouts():
    def conv(x, w):  # OIW kernels, NCW data
        return jax.lax.conv_general_dilated(x, w, (1,), "VALID")

    assert macs(conv, shape(3, 4, 10), shape(8, 4, 3)) == conv_by_loops(3, (8,), (3,), 4, 8)


@pytest.mark.fast
def test_batch_groups():
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            batch_group_count=4,
        )

    # [8, 5, 5, 3] in 4 groups of 2 images; 12 features, 3 from each group: out [2, 3, 3, 12].
    expected = conv_by_loops(2, (3, 3), (3, 3), 3, 12)
    assert macs(conv, shape(8, 5, 5, 3), shape(3, 3, 3, 12)) == expected


@pytest.mark.fast
def test_zeros_between_the_elements_do_not_count():
    def conv(x, w):
        return jax.lax.conv_general_dilated(x, w, (2,), [(1, 2)], lhs_dilation=(3,))

    def lands(o, k):  # dilated length 3 * 4 + 1 = 13
        position = o[0] * 2 + k[0] - 1
        return 0 <= position <= 12 and position % 3 == 0

    expected = conv_by_loops(1, (7,), (4,), 2, 3, lands)
    assert macs(conv, shape(1, 2, 5), shape(3, 2, 4)) == expected


@pytest.mark.oracle
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 2), (3, 3)])
def test_strided_transposed_convolution_against_torch(kernel, stride):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    from torch.utils.flop_counter import FlopCounterMode

    layer = torch.nn.ConvTranspose2d(3, 5, kernel, stride)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 3, 6, 7))

    def ours(x, w):
        return jax.lax.conv_transpose(x, w, (stride, stride), "VALID")

    expected = counter.get_total_flops() // 2
    assert macs(ours, shape(1, 6, 7, 3), shape(kernel, kernel, 3, 5)) == expected


@pytest.mark.fast
@pytest.mark.parametrize(
    ("spec", "a", "b", "expected"),
    [
        ("ij,jk->ik", (3, 4), (4, 5), 3 * 4 * 5),
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5), 2 * 3 * 4 * 5),
        ("bnhd,bmhd->bhnm", (2, 3, 4, 5), (2, 6, 4, 5), 2 * 4 * 3 * 6 * 5),
        ("ij,kl->ijkl", (2, 3), (4, 5), 2 * 3 * 4 * 5),
        ("ij,ij->", (2, 3), (2, 3), 6),
    ],
)
def test_dots(spec, a, b, expected):
    assert macs(lambda x, y: jnp.einsum(spec, x, y), shape(*a), shape(*b)) == expected


@pytest.mark.fast
def test_ragged_dot_is_counted_as_if_every_row_has_a_group():
    arrays = shape(6, 4), shape(3, 4, 5), shape(3, dtype=jnp.int32)
    assert macs(jax.lax.ragged_dot, *arrays) == 6 * 4 * 5


@pytest.mark.fast
def test_a_training_step_costs_three_forward_passes():
    def conv(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), ((0, 0), (0, 0)), dimension_numbers=numbers
        )

    def step(x, w):
        return jax.value_and_grad(lambda x, w: conv(x, w).sum(), (0, 1))(x, w)

    arrays = shape(2, 9, 9, 3), shape(3, 3, 3, 4)
    assert macs(step, *arrays) == 3 * macs(conv, *arrays)
