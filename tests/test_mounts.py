"""What a mount may be, and the one form of its path."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.spec.mounts import Mount, normal_path, parse_mount, path_in_code, relative_parts
from orchestrator.spec.run import RunSpec


@pytest.mark.parametrize(
    ("text", "resource", "path"),
    [
        ("runs/2/data.txt", "runs/2/data.txt", "data.txt"),
        ("runs/2", "runs/2", "2"),
        ("runs/2/", "runs/2/", "2"),
        ("runs/2:pages", "runs/2", "pages"),
        ("runs/2/a b/c", "runs/2/a b/c", "c"),
        ("runs/latest~1/model:/mnt/model", "runs/latest~1/model", "/mnt/model"),
        ("uploads/cifar:deep/er/", "uploads/cifar", "deep/er/"),
        ("./runs/2/x:./y", "./runs/2/x", "./y"),
        ("runs//2/x", "runs//2/x", "x"),
    ],
)
def test_good_mounts(text: str, resource: str, path: str) -> None:
    assert parse_mount(text) == Mount(resource, path)


@pytest.mark.parametrize(
    "text",
    ["", ":", ":x", "runs/1/x:", "a:b:c", "runs/1/x::y", "/etc/passwd", "runs/1/../x", "..", "runs/..", "runs/1/x:..",
     "runs/1/x:../y", "runs/1/x:a/../..", "runs/1/x:/", "runs/1/x://", "runs/1/x:/a/../b", "runs/1/x:.", "runs/1/a\0b",
     "runs/1/a\nb", "runs/1/x:a\0b", "runs/1/."],
)  # fmt: skip
def test_bad_mounts(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_mount(text)


@pytest.mark.parametrize("text", ["runs", "uploads/", "runs:x"])
def test_mounts_that_are_no_resources(text: str) -> None:
    with pytest.raises(NotFound, match="not a valid resource"):
        parse_mount(text)


PATHS = ["a", "./a", "a/", "a//", "a/b", "/a", "/a/b", "b", "a/c", "./a/./b/"]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(PATHS, 2)))
def test_two_mounts_in_one_place(one: str, other: str) -> None:
    def clean(path: str) -> list[str]:
        return (["/"] if path[0] == "/" else []) + [part for part in path.split("/") if part not in ("", ".")]

    first, second = sorted((clean(one), clean(other)), key=len)
    mounts = (Mount("runs/1/x", one), Mount("runs/2/y", other))
    if second[: len(first)] == first:
        with pytest.raises(InvalidConfig, match="Two mounts have the same path"):
            RunSpec("true", mounts=mounts)
    else:
        assert RunSpec("true", mounts=mounts).mounts == mounts


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a", ("a",)),
        ("a/b", ("a", "b")),
        ("./a//b/.", ("a", "b")),
        ("...", ("...",)),
        ("a/..b", ("a", "..b")),
        (" ", (" ",)),
    ],
)
def test_good_relative_paths(path: str, parts: tuple[str, ...]) -> None:
    assert relative_parts(path, "The path") == parts


@pytest.mark.parametrize("path", ["", ".", "./.", "/", "/a", "..", "../a", "a/..", "a/../b", "a\0", "a\nb"])
def test_bad_relative_paths(path: str) -> None:
    with pytest.raises(InvalidConfig, match="The path"):
        relative_parts(path, "The path")


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("a", "a"),
        ("./a//b/.", "a/b"),
        ("a/", "a"),
        ("...", "..."),
        ("/a/", "/a"),
        ("//a", "/a"),
        ("/./a//b/", "/a/b"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_normal_paths(path: str, normal: str) -> None:
    assert normal_path(path) == normal == normal_path(normal)


@pytest.mark.parametrize(
    ("subdir", "path", "place"),
    [
        ("", "in", "in"),
        ("", "./in/", "in"),
        ("sub/dir", "in", "sub/dir/in"),
        ("sub", "./in//x", "sub/in/x"),
        ("sub", "/mnt//x/", "/mnt/x"),
        ("", "/mnt", "/mnt"),
    ],
)
def test_paths_start_from_the_callers_directory(subdir: str, path: str, place: str) -> None:
    assert path_in_code(subdir, path) == place
