"""Versions: those of device attributes (semver 2.0.0, compared as CEL selectors do), and servers'.

Drivers and CUDA number themselves more loosely (`570.158.01`); `to_semver` brings them into shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final, TypeAlias

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER: Final = r"[0-9A-Za-z-]+"
_STRICT: Final = re.compile(
    rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER})"
    rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    rf"(?:\+(?P<build>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
)
_LOOSE: Final = re.compile(r"v?(?P<core>[0-9]+(?:\.[0-9]+){0,2})(?P<rest>[-+].*)?", re.DOTALL)
_SERVER: Final = re.compile(r"v?(?P<major>[0-9]+)\.(?P<minor>[0-9]+)(?![0-9])")
_MAX_NUMBER: Final = 2**64 - 1
_MAX_TEXT: Final = 256

_Rank: TypeAlias = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


class SemverError(ValueError):
    """The text is no version."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"{text[:_MAX_TEXT]!r} is not a version; expected {expected}")


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Semver:
    """A semantic version. Build metadata is kept, and ignored by comparison and hash."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        return f"{text}+{'.'.join(self.build)}" if self.build else text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Semver):
            return NotImplemented
        return self._rank() == other._rank()

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Semver):
            return NotImplemented
        return self._rank() < other._rank()

    def __hash__(self) -> int:
        return hash(self._rank())

    def _rank(self) -> _Rank:
        """Precedence, semver 2.0.0 section 11: numbers before words, a release after its betas."""
        words = tuple(
            (False, int(word), "") if word.isdigit() else (True, 0, word)
            for word in self.prerelease
        )
        return self.major, self.minor, self.patch, not self.prerelease, words


def parse_semver(text: str, *, normalize: bool = False) -> Semver:
    """Read a strict semver 2.0.0 version.

    With `normalize` the text may also have a leading `v`, miss minor and patch, and pad numbers
    with zeros, as CEL's `semver(text, true)` allows. Raises `SemverError`.
    """
    strict = _normalized(text) if normalize else text
    found = _STRICT.fullmatch(strict) if len(strict) <= _MAX_TEXT else None
    if found is None:
        raise SemverError(text, "MAJOR.MINOR.PATCH without leading zeros, as in 1.2.3")
    major, minor, patch = (int(found[name]) for name in ("major", "minor", "patch"))
    prerelease = tuple(found["pre"].split(".")) if found["pre"] else ()
    padded = any(word.isdigit() and word != "0" and word.startswith("0") for word in prerelease)
    if padded or max(major, minor, patch) > _MAX_NUMBER:
        raise SemverError(text, "64-bit numbers without leading zeros")
    return Semver(
        major, minor, patch, prerelease, tuple(found["build"].split(".")) if found["build"] else ()
    )


def to_semver(text: str) -> str:
    """The semver form of a loosely numbered version: `570.158.01` is `570.158.1`, `12.8` `12.8.0`.

    Raises `SemverError` where there is none.
    """
    return str(parse_semver(text.strip(), normalize=True))


def server_minor(git_version: str) -> tuple[int, int]:
    """Major and minor of a server, whatever a provider appends: `v1.35.0-gke.1` is (1, 35).

    Raises `SemverError`.
    """
    found = _SERVER.match(git_version)
    if found is None or len(found[0]) > 20:
        raise SemverError(git_version, "a server version, as in v1.35.0")
    return int(found["major"]), int(found["minor"])


def _normalized(text: str) -> str:
    found = _LOOSE.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if found is None:
        return text
    numbers = [str(int(number)) for number in found["core"].split(".")]
    numbers += ["0"] * (3 - len(numbers))
    return ".".join(numbers) + (found["rest"] or "")
