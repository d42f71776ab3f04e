"""The image's three layers as directories: Debian and the hook, Python packages, the product.

The first two change rarely and are kept in the cache; the third takes a few seconds.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from archive import MAKING
from contents import (
    ARCHITECTURES,
    PROJECT,
    BuildError,
    Contents,
    key_of,
    key_of_sources,
    native_architecture,
    requirements,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NAMES = ("base", "dependencies", "product")


class Layers:
    """Makes the layers of one architecture below `cache`."""

    def __init__(self, contents: Contents, *, architecture: str, cache: Path) -> None:
        self._contents = contents
        self._architecture = architecture
        self._cache = cache / architecture

    def make(self) -> list[Path]:
        """The directories of the layers, in order; made where the cache has none."""
        base = self._kept("base", self._make_base, self._contents.base, self._contents.hook,
                          self._contents.files)  # fmt: skip
        python = python_of(base)
        wanted = requirements(self._contents)
        dependencies = self._kept(
            "dependencies",
            lambda target: self._make_dependencies(target, wanted, python, base),
            wanted, python, self._contents.python,
        )  # fmt: skip
        product = self._kept(
            "product",
            lambda target: self._make_product(target, python, base),
            key_of_sources(), python, self._contents.python, self._contents.programs,
        )  # fmt: skip
        return [base, dependencies, product]

    def _kept(self, name: str, make: Callable[[Path], None], *parts: object) -> Path:
        # Built differently is another layer, too.
        target = self._cache / f"{name}-{key_of(Path(__file__).read_bytes(), *parts)}"
        if target.is_dir():
            return target
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=MAKING) as scratch:
            made = Path(scratch) / "root"
            make(made)
            made.chmod(0o755)
            made.rename(target)
        for old in self._cache.glob(f"{name}-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
                old.with_suffix(".tar.gz").unlink(missing_ok=True)
        return target

    def _make_base(self, target: Path) -> None:
        base = self._contents.base
        run(
            ["mmdebstrap", "--variant=extract", f"--architectures={self._architecture}",
             f"--include={','.join(base['packages'])}", "--quiet", base["suite"], target],
            remedy="apt-get install mmdebstrap (1.3 or later), and run as root",
        )  # fmt: skip
        trim(target, base["trim"])
        take_privileges(target)
        shutil.rmtree(target / "dev")
        (target / "dev").mkdir()
        for name, text in self._contents.files.items():
            (target / name).write_text(text)
        self._add_hook(target)
        python = python_of(target)
        self._compile(target, f"usr/lib/python{python}", python, base=target)

    def _add_hook(self, target: Path) -> None:
        hook = self._contents.hook
        program = target / hook["path"]
        with tempfile.TemporaryDirectory(prefix="hook-") as scratch:
            run(
                ["go", "install", "-trimpath", "-tags=netgo,osusergo", "-ldflags",
                 " ".join(hook["link"]),
                 f"{hook['module']}@{hook['version']}"],
                # An install across processors goes below GOPATH's bin, and GOBIN is refused.
                environment={**self._cross_compiler(), "GOARCH": self._architecture,
                             "CGO_ENABLED": "1", "GOPATH": scratch, "GOBIN": "",
                             "GOFLAGS": "-modcacherw"},
                remedy="install Go 1.25 or later and gcc with a static C library (libc6-dev)",
            )  # fmt: skip
            (built,) = Path(scratch, "bin").rglob(program.name)
            shutil.copyfile(built, program)
        program.chmod(0o755)

    def _cross_compiler(self) -> Mapping[str, str]:
        if self._architecture == native_architecture():
            return {}
        return {"CC": f"{ARCHITECTURES[self._architecture]}-linux-gnu-gcc"}

    def _make_dependencies(
        self, target: Path, wanted: Iterable[str], python: str, base: Path
    ) -> None:
        gnu = ARCHITECTURES[self._architecture]
        platforms = [f"--platform=manylinux{kind}_{gnu}" for kind in ("2014", "_2_28", "_2_34")]
        site = target / self._contents.python["site"]
        _pip("install", "--no-compile", "--only-binary=:all:", f"--python-version={python}",
             *platforms, f"--target={site}", *wanted)  # fmt: skip
        trim(site, self._contents.python["trim"])
        self._compile(target, self._contents.python["site"], python, base=base)

    def _make_product(self, target: Path, python: str, base: Path) -> None:
        site = target / self._contents.python["site"]
        with tempfile.TemporaryDirectory(prefix="wheel-") as scratch:
            _pip("wheel", "--no-deps", f"--wheel-dir={scratch}", PROJECT)
            (wheel,) = Path(scratch).glob("nvdra-*.whl")
            _pip("install", "--no-compile", "--no-deps", "--ignore-requires-python",
                 f"--target={site}", wheel)  # fmt: skip
        trim(site, self._contents.python["trim"])
        self._compile(target, self._contents.python["site"], python, base=base)
        (target / "usr" / "bin").mkdir(parents=True)
        for name, entry in self._contents.programs.items():
            program = target / "usr" / "bin" / name
            program.write_text(launcher(entry))
            program.chmod(0o755)

    def _compile(self, layer: Path, where: str, python: str, *, base: Path) -> None:
        """Bytecode for `where` in the layer, so that no start of a pod has to make it.

        Unchecked: nobody edits files in an image, and start-up is faster without the look.
        """
        program, environment = self._python(base, python)
        run(
            [*program, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash",
             "-s", layer, "-p", "/", layer / where],
            environment=environment,
        )  # fmt: skip

    def _python(self, base: Path, python: str) -> tuple[list[object], dict[str, str]]:
        """The image's own Python with its own C library, or one of its version that runs here."""
        if self._architecture == native_architecture():
            multiarch = base / "usr" / "lib" / f"{ARCHITECTURES[self._architecture]}-linux-gnu"
            loader = next(multiarch.glob("ld-linux-*.so.*"))
            program = base / "usr" / "bin" / f"python{python}"
            home = {"PYTHONHOME": str(base / "usr"), "PYTHONDONTWRITEBYTECODE": "1"}
            return [loader, "--library-path", multiarch, program], home
        if "{}.{}".format(*sys.version_info) == python:
            return [sys.executable], {}
        raise BuildError(f"to compile for {self._architecture}, run build.py by Python {python}")


def python_of(base: Path) -> str:
    """Version of the Python in a base layer, e.g. 3.13."""
    (found,) = (base / "usr" / "bin").glob("python3.*[0-9]")
    return found.name.removeprefix("python")


def launcher(entry: str) -> str:
    """A console script for `module:function`."""
    module, function = entry.split(":")
    return f"#!/usr/bin/python3\nfrom {module} import {function}\n\n{function}()\n"


def trim(root: Path, patterns: Iterable[str]) -> None:
    """Remove what the patterns name below `root`."""
    for pattern in patterns:
        for path in list(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def take_privileges(root: Path) -> None:
    """No program in the image makes its caller root: who needs that, is."""
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def run(
    command: Iterable[object],
    *,
    environment: Mapping[str, str] | None = None,
    remedy: str = "",
) -> None:
    """Run a command; `BuildError` with its last lines if it fails."""
    words = [str(word) for word in command]
    hint = f"; {remedy}" if remedy else ""
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError as exc:
        raise BuildError(f"{words[0]} is not installed{hint}") from exc
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise BuildError(f"{words[0]} failed with status {done.returncode}{hint}:\n{tail}")


def _pip(*arguments: object) -> None:
    run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        environment={"PIP_ROOT_USER_ACTION": "ignore"},
        remedy="it needs pip 23 or later",
    )
