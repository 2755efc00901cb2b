# SPDX-License-Identifier: Apache-2.0
"""Series colours: mid-tones that hold their contrast on light and on dark paper."""

COLOURS = ("#3b82c4", "#d9822b", "#3f9d6b", "#a568c9", "#c9506b", "#7c8794")
FRONT, DOMINATED = COLOURS[0], COLOURS[5]
