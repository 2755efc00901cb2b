# SPDX-License-Identifier: Apache-2.0
"""Where in somebody's code an error comes from."""

import traceback

# Frames of these are not the user's; `tests` of ours are.
_OTHERS = ("/jax/", "/flax/", "efficient_layers/compress/", "efficient_layers/measure/")


def source_line(error: BaseException) -> str:
    """The error's first line, and "file:number: code" of the last frame outside of JAX and Flax."""
    text = str(error).splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(p in f.filename for p in _OTHERS)]
    where = f" ({own[-1].filename}:{own[-1].lineno}: {own[-1].line})" if own else ""
    return f"{type(error).__name__}: {text[0] if text else ''}{where}"
