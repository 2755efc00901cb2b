# SPDX-License-Identifier: Apache-2.0
"""`--filter`: globs on names, comma between them."""

import difflib
import fnmatch
from collections.abc import Sequence

_SUGGESTED = 6


def matching(pattern: str, names: Sequence[str], what: str) -> list[str]:
    """The names that match one of the globs, in their order.

    >>> matching("a*,c", ["ab", "b", "c"], "letter")
    ['ab', 'c']

    Raises:
      ValueError: none does; the message names the nearest.
    """
    globs = pattern.split(",")
    found = [name for name in names if any(fnmatch.fnmatch(name, glob) for glob in globs)]
    if not found:
        near = difflib.get_close_matches(pattern, names, n=_SUGGESTED, cutoff=0.2)
        raise ValueError(
            f"--filter={pattern!r} matches no {what} of {len(names)}. "
            f"The nearest: {', '.join(near or names[:_SUGGESTED])}."
        )
    return found
