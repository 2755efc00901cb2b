# SPDX-License-Identifier: Apache-2.0
"""What the library says while a run goes on: to the workdir's log.txt and to the terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


@contextmanager
def journal(path: Path) -> Iterator[None]:
    """Messages of the `efficient_layers` loggers go to `path` (appended) and to standard error."""
    logger = logging.getLogger("efficient_layers")
    before = logger.level, logger.propagate
    handlers: list[logging.Handler] = [logging.FileHandler(path), logging.StreamHandler(sys.stderr)]
    for handler in handlers:
        handler.setFormatter(_FORMAT)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl's root handler would print everything twice
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        handlers[0].close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
