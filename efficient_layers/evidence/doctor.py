# SPDX-License-Identifier: Apache-2.0
"""What this machine has of what the project needs, and the command for what it has not.

A `Finding` is one line of the answer. What is required and wrong makes the whole answer "not ok";
an extra that is absent is only shown, with its command.
"""

import dataclasses
import importlib.metadata
import importlib.resources
import os
import platform
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import rich.table
import rich.text
from packaging.requirements import Requirement

State = Literal["ok", "absent", "broken"]
_ROOT = Path(__file__).parents[2]
_STYLE = {"ok": "green", "absent": "yellow", "broken": "bold red"}
# What an extra of another package brings, and packages that stand in for one another.
_BROUGHT = {"jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}
_INSTEAD = {"tensorflow-cpu": "tensorflow"}
_ORACLES = ["torch==2.13.0", "torchvision==0.28.0", "timm", "scikit-learn"]
_FREE = 2**30  # bytes: a run with five checkpoints of MobileNetV2 takes about a third of it


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing looked at: `command` is what to run where `state` is not "ok"."""

    group: str
    name: str
    state: State
    found: str
    command: str = ""


def examine(*, data_dir: str | None = None, workdir: str = "runs") -> list[Finding]:
    """Everything there is to say, in order; takes seconds and changes nothing.

    `data_dir` is where TFDS data sets are (None: `TFDS_DATA_DIR`, then ~/tensorflow_datasets);
    `workdir` is where runs are to be written.
    """
    required, extras = declared()
    return [
        python(),
        *packages("required", required, required=True),
        *devices(),
        *(f for extra, names in extras.items() for f in packages(extra, names)),
        *oracles(),
        *browser(),
        *data(data_dir),
        *(writable(Path(p)) for p in (workdir, tempfile.gettempdir())),
    ]


def ok(findings: Iterable[Finding]) -> bool:
    """False where something required is broken."""
    return all(finding.state != "broken" for finding in findings)


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """Requirements and extras: of the checkout's own files, or of the installed package."""
    project = _ROOT / "pyproject.toml"
    if project.exists():
        lines = (_ROOT / "requirements.txt").read_text().splitlines()
        extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
        return [line for line in lines if line and not line.startswith("#")], extras
    listed = [Requirement(r) for r in importlib.metadata.requires("efficient_layers") or []]
    names = importlib.metadata.metadata("efficient_layers").get_all("Provides-Extra") or []
    of = {
        extra: [str(r) for r in listed if r.marker and r.marker.evaluate({"extra": extra})]
        for extra in names
    }
    return [str(r) for r in listed if not r.marker], of


def python() -> Finding:
    """The interpreter: 3.11 to 3.13."""
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    command = "" if good else "make PYTHON=python3.11 run"
    return Finding("required", "Python", "ok" if good else "broken", version, command)


def packages(
    group: str, requirements: Sequence[str], *, required: bool = False
) -> Iterator[Finding]:
    """A finding for each requirement that applies to this interpreter."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": group}):
            continue
        asked = text.split(";")[0].strip()
        version = _version(_BROUGHT.get(asked, requirement.name))
        good = version is not None and requirement.specifier.contains(version, prereleases=True)
        bad: State = "broken" if required else "absent"
        found = version if good or not version else f"{version} does not fit"
        command = "" if good else _pip(asked)
        yield Finding(group, asked, "ok" if good else bad, found or "not installed", command)


def _version(name: str) -> str | None:
    for candidate in (name, _INSTEAD.get(name, name)):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _pip(*arguments: str) -> str:
    return shlex.join([_interpreter(), "-m", "pip", "install", *arguments])


def _interpreter() -> str:
    """This Python, as short as it can be typed here."""
    here = os.getcwd() + os.sep
    return sys.executable.removeprefix(here)


def devices() -> Iterator[Finding]:
    """What JAX computes on; an accelerator it does not see is absent, with the command."""
    try:
        seen = jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names a backend that does not start
        command = "unset JAX_PLATFORMS"
        yield Finding("devices", "JAX", "broken", str(error).splitlines()[0], command)
        return
    kinds = sorted({device.device_kind for device in seen})
    yield Finding("devices", "JAX", "ok", f"{len(seen)} x {seen[0].platform} ({', '.join(kinds)})")
    if seen[0].platform == "cpu":
        for name, there, extra in (
            ("GPU", shutil.which("nvidia-smi"), "jax[cuda13]"),
            ("TPU", os.path.exists("/dev/accel0"), "jax[tpu]"),
        ):
            if there:
                found = f"a {name} is here, JAX does not use it"
                yield Finding("devices", name, "absent", found, _pip(extra))


def oracles() -> Iterator[Finding]:
    """What tests compare with; torchvision and timm without their own CUDA builds of torch."""
    for finding in packages("oracles", _ORACLES):
        alone = finding.name.startswith(("torchvision", "timm"))
        again = finding.state != "ok" and alone
        command = _pip("--no-deps", finding.name) if again else finding.command
        yield dataclasses.replace(finding, command=command)


def browser() -> Iterator[Finding]:
    """Headless Chromium, in which tests open the reports."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        path = shutil.which(program)
        command = "" if path else f"apt-get install {package}"
        yield Finding("browser", program, "ok" if path else "absent", path or "not found", command)


def data(data_dir: str | None = None) -> Iterator[Finding]:
    """The embedded digits, and the TFDS data sets that are prepared in `data_dir`."""
    digits = importlib.resources.files("efficient_layers.data").joinpath("digits.npz")
    there = digits.is_file()
    command = "" if there else "git checkout -- efficient_layers/data/digits.npz"
    found = "embedded" if there else "efficient_layers/data/digits.npz is gone"
    yield Finding("data", "digits", "ok" if there else "broken", found, command)
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    prepared = sorted({info.relative_to(root).parts[0] for info in _infos(root)})
    if prepared:
        yield Finding("data", str(root), "ok", ", ".join(prepared))
        return
    state: State = "broken" if data_dir else "absent"  # a folder somebody named must hold data
    build = ["-m", "tensorflow_datasets.scripts.cli.main", "build", "cifar10"]
    build += [f"--data_dir={root}", "--file_format=array_record"]
    reason = "no prepared data set" if root.is_dir() else "no such folder"
    yield Finding("data", str(root), state, reason, shlex.join([_interpreter(), *build]))


def _infos(root: Path) -> Iterator[Path]:
    """NAME/VERSION/ or NAME/CONFIG/VERSION/ below `root`."""
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        yield from root.glob(pattern)


def writable(path: Path) -> Finding:
    """Whether a run can be written to `path` (or the first folder above it that exists)."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    name = str(path)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as error:
        command = "give --workdir a folder that you may write to"
        return Finding("disk", name, "broken", f"{existing}: {error.strerror}", command)
    free = shutil.disk_usage(existing).free
    text = f"writable, {free / 2**30:.1f} GiB free"
    if free < _FREE:
        return Finding("disk", name, "broken", text, f"make room: a run needs {_FREE >> 30} GiB")
    return Finding("disk", name, "ok", text)


def table(findings: Iterable[Finding]) -> rich.table.Table:
    """For a terminal: a row a finding, coloured by state."""
    result = rich.table.Table("", "what", "found", box=None, pad_edge=False)
    group = ""
    for finding in findings:
        first, group = finding.group if finding.group != group else "", finding.group
        mark = {"ok": "", "absent": "- ", "broken": "! "}[finding.state]
        found = rich.text.Text(mark + finding.found, style=_STYLE[finding.state])
        result.add_row(rich.text.Text(first), rich.text.Text(finding.name), found)
    return result


def commands(findings: Iterable[Finding]) -> list[str]:
    """A line a thing that is not there, whole, to be copied: `hpo: python -m pip install ...`."""
    return [f"{f.group}: {f.command}" for f in findings if f.state != "ok"]


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """`{"ok": bool, "findings": [{group, name, state, found, command}, ...]}`."""
    return {"ok": ok(findings), "findings": [dataclasses.asdict(f) for f in findings]}
