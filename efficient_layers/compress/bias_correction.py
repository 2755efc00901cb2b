# SPDX-License-Identifier: Apache-2.0
"""The mean error that rounded weights make, taken back by the bias."""

import numpy as np
from jaxtyping import Float


def bias_correction(
    w: Float[np.ndarray, "g d o"],
    rounded: Float[np.ndarray, "g d o"],
    mean: Float[np.ndarray, "g d"],
) -> Float[np.ndarray, "g*o"]:
    """E[x W] - E[x W_q] = E[x] (W - W_q), to be added to the bias; of g groups of a convolution.

    Reference: Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias
    Correction* (arXiv 1906.04721), section 4.2, equations 15 to 17. Differs from the paper: E[x] is
    the mean over data, the padding of convolutions in it, not inferred from BatchNorm (their
    appendix D has a form with data, of outputs). What int8 activations add is not looked at.
    """
    return np.einsum("gd,gdo->go", mean, w - rounded).ravel()
