"""What goes into the driver's image, and that both ways to build it agree."""

from __future__ import annotations

import fcntl
import importlib
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from nvdra_operator.domains.objects import DAEMON_PROGRAM
from nvdra_testing.helm import CHART
from nvdra_testing.image import IMAGE, image_module

if TYPE_CHECKING:
    from pathlib import Path

build = image_module("build")
contents = image_module("contents")
layers = image_module("layers")
DOCKERFILE = (IMAGE / "Dockerfile").read_text()


def test_programs_in_the_image_exist() -> None:
    for entry in contents.read_contents().programs.values():
        module, function = entry.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_chart_starts_programs_that_the_image_has() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    started = set(re.findall(r"\bnvdra-[a-z-]+", templates))
    # IMEX daemons are started by the controller.
    assert started | {DAEMON_PROGRAM} == contents.read_contents().programs.keys()


def test_programs_have_the_names_and_entries_of_the_distribution() -> None:
    scripts = contents.project()["scripts"]
    programs = contents.read_contents().programs
    assert {name: programs[name] for name in programs.keys() & scripts.keys()} == {
        name: entry for name, entry in scripts.items() if name != "nvdra"
    }


def test_the_chart_looks_for_the_image_that_is_built() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["image"]["repository"] == contents.read_contents().image["reference"]


def test_requirements_are_those_of_agents_and_controller() -> None:
    wanted = contents.requirements(contents.read_contents())
    found = {re.split(r"[<>=]", each)[0] for each in wanted}
    assert found >= {"msgspec", "aiohttp", "grpclib", "kopf", "pyyaml"}
    # Kopf loads kubernetes-asyncio where it finds it, and that takes 37 MiB.
    assert not found & {"kubernetes-asyncio", "rich", "cel-expr-python", "cryptography"}


def test_tools_that_scripts_call_in_pods_are_there() -> None:
    packages = set(contents.read_contents().base["packages"])
    assert packages >= {"dash", "curl", "procps", "coreutils", "sed"}


def test_the_dockerfile_says_of_the_image_what_the_list_says() -> None:
    image = contents.read_contents().image
    assert f"USER {image['user']}" in DOCKERFILE
    for name, value in image["environment"].items():
        assert f"{name}={value}" in DOCKERFILE
    for name, value in image["labels"].items():
        assert f'{name}="{value}"' in DOCKERFILE
    command = ", ".join(f'"{word}"' for word in image["command"])
    assert f"CMD [{command}]" in DOCKERFILE


def test_the_dockerfile_has_the_version_of_the_product() -> None:
    assert f"ARG VERSION={contents.project()['version']}\n" in DOCKERFILE


def test_the_dockerfile_copies_every_layer_in_order() -> None:
    copied = re.findall(r"COPY --from=builder /layers/(\w+) /", DOCKERFILE)
    assert tuple(copied) == layers.NAMES
    release = contents.read_contents().base["suite"]
    assert re.search(rf"^FROM --platform=\$BUILDPLATFORM golang:\S+-{release} ", DOCKERFILE, re.M)


def test_the_docker_build_sees_all_sources() -> None:
    ignored = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert kept >= {*contents.SOURCES, "manifests/image", "README.md", "LICENSE"}


def test_the_product_layer_is_made_anew_when_anything_in_the_wheel_changes() -> None:
    whole = tomllib.loads((contents.PROJECT / "pyproject.toml").read_text())
    wheel = whole["tool"]["hatch"]["build"]["targets"]["wheel"]
    for packed in (*wheel["packages"], *wheel["force-include"]):
        assert packed.startswith(contents.SOURCES), packed


def test_trimming_removes_what_patterns_name_and_no_more(tmp_path: Path) -> None:
    for name in ("a/tests/x", "a/keep", "b/deep/y.pyi", "b/deep/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    layers.trim(tmp_path, ["*/tests", "**/*.pyi", "link", "absent*"])
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "a/keep",
        "b/deep/y.py",
    ]
    assert not (tmp_path / "link").is_symlink()


def test_no_program_in_the_image_gives_privileges(tmp_path: Path) -> None:
    program = tmp_path / "su"
    program.touch()
    program.chmod(0o4755)
    layers.take_privileges(tmp_path)
    assert program.stat().st_mode & 0o7777 == 0o755


def test_a_launcher_calls_its_function(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text("def main():\n    print('hello')\n")
    program = tmp_path / "program"
    program.write_text(layers.launcher("greeting:main"))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert done.stdout == "hello\n"


def test_a_missing_tool_is_one_line_with_what_to_do() -> None:
    with pytest.raises(contents.BuildError, match="nothing-like-it is not installed; get it"):
        layers.run(["nothing-like-it"], remedy="get it")


def test_a_failing_tool_is_quoted() -> None:
    with pytest.raises(contents.BuildError, match=r"(?s)sh failed with status 3.*no space"):
        layers.run(["sh", "-c", "echo no space >&2; exit 3"])


def test_layers_are_kept_until_what_they_hold_changes(tmp_path: Path) -> None:
    made = []
    store = layers.Layers(contents.read_contents(), architecture="amd64", cache=tmp_path)

    def make(target: Path) -> None:
        target.mkdir()
        made.append(target)

    first = store._kept("base", make, "one")
    assert store._kept("base", make, "one") == first
    second = store._kept("base", make, "two")
    assert len(made) == 2
    assert sorted(path.name for path in (tmp_path / "amd64").iterdir()) == [second.name]


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "amd64" / f"{layers.MAKING}layer"
    left.mkdir(parents=True)
    (left / "root").touch()
    left.with_name(f"{layers.MAKING}blob").touch()
    kept = left.with_name("base-1")
    kept.mkdir()
    with build.alone(tmp_path):
        assert list((tmp_path / "amd64").iterdir()) == [kept]


def test_two_builds_take_turns_in_one_cache(tmp_path: Path) -> None:
    with build.alone(tmp_path), (tmp_path / "lock").open("w") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_layer_that_failed_leaves_nothing(tmp_path: Path) -> None:
    store = layers.Layers(contents.read_contents(), architecture="amd64", cache=tmp_path)

    def fail(target: Path) -> None:
        target.mkdir()
        raise contents.BuildError("disk full")

    with pytest.raises(contents.BuildError, match="disk full"):
        store._kept("base", fail, 1)
    assert list((tmp_path / "amd64").iterdir()) == []
