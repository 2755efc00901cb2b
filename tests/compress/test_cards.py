# SPDX-License-Identifier: Apache-2.0
"""Every technique has a card in `docs/compress`; its examples run, its row stands in the index."""

import inspect
import re
from pathlib import Path

import pytest

from efficient_layers import compress

FOLDER = Path(__file__).parents[2] / "docs/compress"
PAGES = {path.stem: path.read_text() for path in FOLDER.glob("*.md") if path.stem != "README"}
CODE = {page: re.findall(r"```python\n(.*?)```", text, re.S) for page, text in PAGES.items()}


@pytest.mark.slow  # eager: every operation is compiled by itself
@pytest.mark.parametrize("page", sorted(page for page, code in CODE.items() if code))
def test_the_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for those that write files
    scope: dict = {}
    for block in CODE[page]:
        exec(block, scope)


def test_every_page_has_an_example() -> None:
    """In Python, or the command where it is one."""
    assert all(CODE[page] or "\npython -m launch." in text for page, text in PAGES.items())


def test_every_page_has_one_row_in_the_index() -> None:
    linked = re.findall(r"^\| \[[^]]+\]\((\w+)\.md\)", (FOLDER / "README.md").read_text(), re.M)
    assert sorted(linked) == sorted(PAGES)


def test_every_technique_is_on_a_page() -> None:
    text = "\n".join(PAGES.values())
    public = [getattr(compress, name) for name in compress.__all__]
    kinds = [k for k in public if inspect.isclass(k) and issubclass(k, compress.Technique)]
    missing = {k.__name__ for k in kinds if not re.search(rf"\b{k.__name__}\b", text)}
    # A technique of its own name in the docs, but for what all of them stand on.
    assert missing <= {"Technique", "Finalize"}
