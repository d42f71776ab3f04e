"""Containers without namespaces: a few harmless commands, evaluated against the CDI view.

For machines that forbid user namespaces. Nothing of the image runs; the shell's command line is
interpreted here, and `nvidia-smi` is the simulated driver's own script, shown only those device
nodes that the container's CDI edits name. The log of every such container says so. The driver's own
programs run as plain processes.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.kubelet.container import StartError, runtime_config
from nvdra_sim.cluster.kubelet.host_process import start_on_host

if TYPE_CHECKING:
    from nvdra_sim.cluster.kubelet.container import ContainerSpec, RunningContainer

COMMANDS = (":", "echo", "env", "exit", "false", "nvidia-smi", "sleep", "trap", "true", "wait")
_SHELLS = ("bash", "sh", "/bin/bash", "/bin/sh", "/usr/bin/bash", "/usr/bin/sh")
_SEPARATORS = frozenset({";", "&", "&&", "||", "\n"})
_SYNTAX = re.compile(r"[`<>(){}*?\[\]|]|\$\(")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|(\?))")
_SMI = re.compile(r"/bin/nvidia-smi$")


class NotInterpreted(Exception):
    """A command line with more syntax than is understood here."""


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(frozen=True, slots=True)
class InterpretedRuntime:
    """`reason` says why there are no real containers."""

    reason: str

    async def start(self, spec: ContainerSpec) -> RunningContainer:
        if command := spec.image.content.host_command(spec.args[0]):
            return await start_on_host(spec, command)
        await asyncio.to_thread(self._lay_out, spec)
        notice = (
            f"[no namespaces on this machine ({self.reason}): interpreting "
            f"{', '.join(COMMANDS)} and nothing else]"
        )
        return _Interpreted(spec, notice)

    def _lay_out(self, spec: ContainerSpec) -> None:
        """The container's `/dev` as empty files, and its empty log."""
        config = runtime_config(spec)
        try:
            for node in config["linux"]["devices"]:
                path = spec.bundle / node["path"].lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            spec.bundle.mkdir(parents=True, exist_ok=True)
            spec.log.parent.mkdir(parents=True, exist_ok=True)
            spec.log.touch()
        except OSError as exc:
            raise StartError(f"view of container {spec.name}: {exc}") from exc


class _Interpreted:
    """One interpreted container: a task in place of a process."""

    def __init__(self, spec: ContainerSpec, notice: str) -> None:
        self._spec = spec
        self._shell = Shell(spec, notice=notice)
        self._task = asyncio.create_task(self._run(), name=f"container {spec.bundle.name}")

    async def wait(self) -> int:
        return await asyncio.shield(self._task)

    def terminate(self) -> None:
        self._shell.terminated.set()

    def kill(self) -> None:
        self._shell.killed.set()

    async def _run(self) -> int:
        work = asyncio.create_task(self._shell.run(self._spec.args), name="interpreter")
        killed = asyncio.create_task(self._shell.killed.wait(), name="kill")
        try:
            await asyncio.wait((work, killed), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else 137
        finally:
            for task in (work, killed):
                task.cancel()
            await asyncio.gather(work, killed, return_exceptions=True)
            await asyncio.to_thread(shutil.rmtree, self._spec.bundle, ignore_errors=True)


@dataclass(slots=True)
class Shell:
    """Runs a command line of `COMMANDS` joined by `;`, `&`, `&&`, `||` and newlines."""

    spec: ContainerSpec
    notice: str
    terminated: asyncio.Event = field(default_factory=asyncio.Event)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    _noticed: bool = False
    _trap: str | None = None
    _code: int = 0
    _jobs: list[asyncio.Task[int]] = field(default_factory=list)

    async def run(self, args: tuple[str, ...]) -> int:
        """The exit code. SIGTERM without a trap is ignored, as by any process 1."""
        try:
            if args[0] in _SHELLS and args[1:2] == ("-c",):
                await self._script(args[2])
            else:
                self._code = await self._command(list(args))
        except _Exit as exc:
            return exc.code
        except NotInterpreted as exc:
            self._say(f"not interpreted: {exc}")
            return 2
        finally:
            for job in self._jobs:
                job.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)
        return self._code

    async def _script(self, text: str) -> None:
        skip = False
        for words, separator in split_commands(text):
            if not skip and words:
                await self._step(words, background=separator == "&")
            if separator == "&&":
                skip = self._code != 0
            elif separator == "||":
                skip = self._code == 0
            else:
                skip = False

    async def _step(self, words: list[str], *, background: bool) -> None:
        words = [self._expanded(word) for word in words]
        if background:
            name = f"job {len(self._jobs)}"
            self._jobs.append(asyncio.create_task(self._command(words), name=name))
            self._code = 0
            return
        self._code = await self._command(words)
        if self.terminated.is_set():
            await self._run_trap()

    async def _command(self, words: list[str]) -> int:
        name, arguments = words[0], words[1:]
        if name in (":", "true"):
            return 0
        if name == "false":
            return 1
        if name == "exit":
            raise _Exit(int(arguments[0]) if arguments else self._code)
        if name == "echo":
            return self._say(" ".join(arguments))
        if name == "env":
            return self._say("\n".join(f"{key}={value}" for key, value in self._env().items()))
        if name == "trap":
            return self._set_trap(arguments)
        if name == "sleep":
            await asyncio.sleep(sum(map(_seconds, arguments)))
            return 0
        if name == "wait":
            return await self._wait()
        if Path(name).name == "nvidia-smi":
            return await self._nvidia_smi(arguments)
        self._say(f"{name}: not among the commands that are interpreted: {', '.join(COMMANDS)}")
        return 127

    def _set_trap(self, arguments: list[str]) -> int:
        if {"TERM", "SIGTERM", "15"} & set(arguments[1:]):
            self._trap = arguments[0]
        return 0

    async def _wait(self) -> int:
        """Until every job is done, or SIGTERM has a trap to run."""
        signal = asyncio.create_task(self.terminated.wait(), name="signal")
        try:
            while pending := {job for job in self._jobs if not job.done()}:
                heard: set[asyncio.Task[Any]] = {signal} if self._trap is not None else set()
                await asyncio.wait(pending | heard, return_when=asyncio.FIRST_COMPLETED)
                if heard and signal.done():
                    return 143
            return 0
        finally:
            signal.cancel()
            await asyncio.gather(signal, return_exceptions=True)

    async def _run_trap(self) -> None:
        self.terminated.clear()
        if self._trap:
            await self._script(self._trap)

    async def _nvidia_smi(self, arguments: list[str]) -> int:
        """The script that the CDI edits mount, with `/dev` being the container's view."""
        mount = next((m for m in self.spec.edits.mounts if _SMI.search(m.container_path)), None)
        if mount is None:
            self._say("nvidia-smi: command not found")
            return 127
        script = await asyncio.to_thread(Path(mount.host_path).read_bytes)
        if not script.startswith(b"#!/bin/sh"):
            raise NotInterpreted(f"{mount.host_path} is not the simulated driver's script")
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", script.replace(b"/dev/nvidia", b"./dev/nvidia"), "nvidia-smi",
            *arguments,
            cwd=self.spec.bundle, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        self._say(output.decode(errors="replace").removesuffix("\n"))
        assert process.returncode is not None
        return process.returncode

    def _env(self) -> dict[str, str]:
        edits = dict(entry.split("=", 1) for entry in self.spec.edits.env)
        return {**self.spec.env, **edits}

    def _expanded(self, word: str) -> str:
        env = self._env()

        def value(match: re.Match[str]) -> str:
            name = match.group(1) or match.group(2)
            return env.get(name, "") if name else str(self._code)

        return _VARIABLE.sub(value, word)

    def _say(self, text: str) -> int:
        """A line of output. The notice comes with the first one: an empty log means nothing yet."""
        with self.spec.log.open("a") as log:
            if not self._noticed:
                self._noticed = True
                log.write(f"{self.notice}\n")
            log.write(f"{text}\n")
        return 0


def split_commands(text: str) -> list[tuple[list[str], str]]:
    """Commands as words, each with the separator behind it. Raises `NotInterpreted`."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[tuple[list[str], str]] = []
    words: list[str] = []
    try:
        for token in lexer:
            separator = token if token == "&&" or token == "||" else token.strip("\n") or ";"
            if set(token) <= set(";&|\n"):
                if separator not in _SEPARATORS:
                    raise NotInterpreted(f"{token!r} in: {text}")
                commands.append((words, separator))
                words = []
            else:
                words.append(token)
    except ValueError as exc:
        raise NotInterpreted(f"{exc} in: {text}") from exc
    _refuse_syntax(text)
    return [*commands, (words, ";")]


def _refuse_syntax(text: str) -> None:
    """Whatever a shell would treat specially outside of quotes and is not understood here."""
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", text).replace("||", "").replace("${", "")
    found = _SYNTAX.search(outside.replace("}", "").replace("$?", ""))
    if found:
        raise NotInterpreted(f"{found.group()!r} in: {text}")


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        if text[-1:] in units:
            return float(text[:-1]) * units[text[-1]]
        return float("inf") if text == "infinity" else float(text)
    except ValueError as exc:
        raise NotInterpreted(f"sleep {text}") from exc
