"""Images: looked into, built by both builders, given up, shared, collected, baked and pushed, by a real engine.

Most tests stand on an image of a few hundred kilobytes, whose apt-get is a script that says what it was given.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import DEADLINE_S, bearing, wait_for
from engines import TEST_IMAGE, engine_api, go_without, need_engine

from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, EngineError
from orchestrator.environments import Environments
from orchestrator.environments.containers import remove_abandoned, this_server
from orchestrator.environments.lock import lock_path
from orchestrator.environments.orphans import key_of_orphan
from orchestrator.environments.uv import BuildCancelled, BuildLog
from orchestrator.errors import BuildFailed, DiskFull, InvalidConfig
from orchestrator.home import Home
from orchestrator.images import build, intermediate, probe
from orchestrator.images.image_request import ImageRequest
from orchestrator.images.images import Image, Images
from orchestrator.images.stream import Watch
from orchestrator.records.gc import RemovedRecord

pytestmark = pytest.mark.xdist_group("test_images")  # one of them looks for tags that others give for a moment

REPOSITORY = "spell-test-images"
LOGIN = ("person", "sesame")
HTPASSWD = "person:$2b$04$vURpwZDBuJ4hpTmfVSXa/etUzzxwrUD9NDDWT7fnQny.mi6Zq1s5G\n"  # bcrypt of LOGIN[1]
TINY = r"""
FROM %(base)s AS full
LABEL spell-test-images=1
RUN mkdir -p /tiny/usr/bin /tiny/bin /tiny/tmp \
 && cp /bin/dash /tiny/bin/sh && cp /bin/rm /bin/cat /bin/sleep /tiny/usr/bin \
 && ldd /bin/dash /bin/rm | grep -o '/lib[^ :]*' | sort -u | xargs -I{} cp --parents -L {} /tiny \
 && cd /tiny/usr/bin && printf '%%s\n' '#!/bin/sh' 'echo %(python)s' > python3 \
 && echo %(apt)s | base64 -d > apt-get && chmod 755 python3 apt-get && %(more)s
FROM scratch
COPY --from=full /tiny/ /
"""


def never() -> bool:
    return False


# -- what the tests stand on ------------------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine with a home of its own; nothing of the home is left in it."""
    need_engine()
    home = Home(tmp_path / "home")
    home.create()
    engine = Engine(home, "")
    yield engine
    try:
        assert containers(engine) == []
    finally:
        Images(engine, DockerConfig()).gc(set(), -60, dry_run=False)


@dataclass
class Bench:
    """Images of one home, and what they are asked."""

    engine: Engine
    folder: Path
    config: DockerConfig = field(default_factory=lambda: DockerConfig(base_image=TEST_IMAGE, gpu_base_image=TEST_IMAGE))
    log: Path = Path()

    def __post_init__(self) -> None:
        self.log = self.folder / "build.log"
        self.images = Images(self.engine, self.config)

    def ensure(self, reference: str = "", *apt: str, python: str = "", **options: Any) -> Image:
        """Ask for an image."""
        cancelled, log = options.pop("cancelled", never), options.pop("log", self.log)
        return self.images.ensure(ImageRequest(reference, apt, python, **options), log, cancelled)

    @property
    def said(self) -> str:
        """The build log."""
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def bench(engine: Engine, tmp_path: Path) -> Bench:
    """Images of one home."""
    return Bench(engine, tmp_path)


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Engine) -> str:
    """Each builder in turn: the docker CLI that has BuildKit, or none."""
    if request.param == "classic":
        monkeypatch.setenv("PATH", str(tmp_path / "none"))
    else:
        monkeypatch.setenv("PATH", path_with_buildkit(engine))
    return str(request.param)


def path_with_buildkit(engine: Engine) -> str:
    """A PATH on which `docker` can BuildKit."""
    paths = (os.environ["PATH"], "/usr/bin:/bin")
    found = [path for path in paths if build.buildkit(engine, {**os.environ, "PATH": path})]
    return found[0] if found else go_without("no docker command here has BuildKit")


@pytest.fixture(scope="session")
def make_base() -> Iterator[Callable[[str], str]]:
    """Make an image from a Dockerfile, with the SDK alone."""
    made: dict[str, str] = {}

    def make(text: str) -> str:
        if text not in made:
            tag = f"{REPOSITORY}:{uuid.uuid4().hex}"
            said = list(engine_api().build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, decode=True))
            assert "error" not in said[-1], said[-1]
            made[text] = tag
        return made[text]

    yield make
    for tag in made.values():
        with suppress(Exception):
            engine_api().remove_image(tag)
    for image in engine_api().images(filters={"dangling": True, "label": f"{REPOSITORY}=1"}):
        engine_api().remove_image(image["Id"])


@pytest.fixture
def tiny(engine: Engine, make_base: Callable[[str], str]) -> Callable[..., str]:
    """Make a tiny image with a shell, and an apt-get and a Python that are scripts."""

    def make(apt: str = "echo nothing", python: str = "3.9.1", more: str = "true") -> str:
        script = base64.b64encode(f"#!/bin/sh\n{apt}\n".encode()).decode()
        return make_base(TINY % {"base": TEST_IMAGE, "python": python, "apt": script, "more": more})

    return make


def hanging() -> tuple[str, str]:
    """An apt-get that says one line and no more, and what its process can be known by."""
    token = str(1000 + int.from_bytes(os.urandom(4), "big"))
    return f"echo waiting; exec sleep {token}", token


def containers(engine: Engine) -> list[dict[str, Any]]:
    """The containers of a home."""
    return list(engine_api().containers(all=True, filters={"label": f"spell.home={engine.home.root}"}))


def containers_on(image: str) -> list[dict[str, Any]]:
    """The containers that stand on an image, those of builds included."""
    return list(engine_api().containers(all=True, filters={"ancestor": image}))


def all_images() -> set[str]:
    return {item["Id"] for item in engine_api().images(all=True)}


def in_container(image: str, *command: str, user: str = "") -> str:
    """What a command says in a new container; its exit code must be 0."""
    api = engine_api()
    container = api.create_container(image, list(command), user=user, network_disabled=True)["Id"]
    try:
        api.start(container)
        code = api.wait(container)["StatusCode"]
        said = api.logs(container).decode()
        assert code == 0, said
        return said.strip()
    finally:
        api.remove_container(container, force=True)


def whole(image: str) -> bytes:
    """All of an image: its layers, configuration and history."""
    return b"".join(engine_api().get_image(image)) + json.dumps(engine_api().history(image)).encode()


# -- an image as it is ------------------------------------------------------------------------------------------------


def test_a_base_with_python_is_used_as_it_is(bench: Bench) -> None:
    image = bench.ensure()
    assert image.id == engine_api().inspect_image(TEST_IMAGE)["Id"]
    assert image.reference == TEST_IMAGE
    assert (image.python, image.version[:4]) == ("/usr/bin/python3", "3.11")
    assert "/usr/bin" in image.path.split(":")
    assert bench.said == ""


def test_an_image_is_looked_into_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.ensure()
    file = bench.engine.home.environments / ".images" / f"{first.id.removeprefix('sha256:')}.json"
    os.utime(file, (0, 0))
    monkeypatch.setattr(probe, "probe", lambda *_: pytest.fail("looked into again"))
    assert bench.ensure() == first
    assert time.time() - file.stat().st_mtime < 60  # it counts as used


def test_what_was_remembered_badly_is_asked_again(bench: Bench) -> None:
    first = bench.ensure()
    file = next((bench.engine.home.environments / ".images").iterdir())
    file.write_text('{"format": 1, "path": ')
    assert bench.ensure() == first


def test_the_base_is_named_by_the_configuration(bench: Bench, tiny: Callable[..., str]) -> None:
    name, gpu = TEST_IMAGE.partition(":")[0], tiny()
    bench.images = Images(bench.engine, DockerConfig(base_image=f"{name}:{{version}}", gpu_base_image=gpu))
    with pytest.raises(BuildFailed, match=re.escape(f"{name}:3.77")):
        bench.ensure(python="3.77")
    assert bench.ensure(gpu=True).reference == gpu


def test_the_wanted_python_is_among_all_on_the_path(bench: Bench, tiny: Callable[..., str]) -> None:
    more = "printf '#!/bin/sh\\necho 3.10.4\\n' > python3.10 && printf '#!/bin/sh\\necho 3.5.2\\n' > python3.5 && chmod 755 python3.*"
    base = tiny(more=more)
    assert (bench.ensure(base).python, bench.ensure(base).version) == ("/usr/bin/python3", "3.9.1")
    assert bench.ensure(base, python="3.10").python == "/usr/bin/python3.10"
    assert bench.ensure(base, python="cpython3.10").python == "/usr/bin/python3.10"
    with pytest.raises(BuildFailed) as caught:
        bench.ensure(base, python="3.1")
    assert caught.value.message == f"The image {base} has Python 3.9.1, 3.10.4, not 3.1."
    assert "--from" in caught.value.cure
    with pytest.raises(BuildFailed):
        bench.ensure(base, python="3.5")  # too old to be of use


def test_an_image_without_a_shell_says_so(bench: Bench, make_base: Callable[[str], str]) -> None:
    base = make_base("FROM scratch\nLABEL a=b\n")
    with pytest.raises(BuildFailed, match="could not be examined") as caught:
        bench.ensure(base)
    assert "/bin/sh" in caught.value.message


@pytest.mark.parametrize("name", ["UPPER/case", "a b", "nosuch.invalid/x:1", "sha256:" + "0" * 64])
def test_an_image_that_cannot_be_had(bench: Bench, name: str) -> None:
    with pytest.raises(BuildFailed, match=re.escape(name)) as caught:
        bench.ensure(name)
    assert caught.value.cure


# -- built ------------------------------------------------------------------------------------------------------------


def test_apt_packages_are_installed_by_either_builder(bench: Bench, builder: str) -> None:
    image = bench.ensure("", "tree")
    assert in_container(image.id, "tree", "--version").startswith("tree")
    assert in_container(
        image.id, "sh", "-c", "ls -A /var/lib/apt/lists /var/cache/apt/archives/*.deb 2>/dev/null || true"
    ) in (
        "/var/lib/apt/lists:",
        "",
    )
    assert (image.python, image.version) == (bench.ensure().python, bench.ensure().version)
    assert ("#1 " in bench.said) == (builder == "buildkit")
    labels = engine_api().inspect_image(image.id)["Config"]["Labels"]
    assert labels["spell.home"] == str(bench.engine.home.root)
    assert labels["spell.role"] == "image"
    assert not [
        tag for item in engine_api().images() for tag in item["RepoTags"] or () if tag.startswith("spell:from-")
    ]


def test_an_image_is_built_once_whatever_the_order(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    base = tiny(f"echo got $* # {os.urandom(8).hex()}")  # a step that was built before says nothing
    first = bench.ensure(base, "one", "two")
    assert "install --yes" in bench.said
    again = bench.folder / "again.log"
    assert bench.ensure(base, "two", "one", "two", log=again) == first
    assert not again.exists()
    assert bench.ensure(base, "two").id != first.id
    assert bench.ensure(base, "one", "two", gpu=True).id != first.id


def test_a_probe_is_not_taken_for_that_of_a_dead_server(bench: Bench) -> None:
    watch = Watch(BuildLog(bench.log), never, DEADLINE_S, "It")
    with probe._container(bench.engine, TEST_IMAGE, "root", watch) as container:
        remove_abandoned(bench.engine)
        assert engine_api().inspect_container(container)


def test_what_a_killed_build_leaves_is_removed(bench: Bench, tiny: Callable[..., str]) -> None:
    """The name that it gave to its base, where that has another; names of other homes and of living servers stay."""
    base = tiny()
    ours = f"from-{hashlib.sha256(str(bench.engine.home.root).encode()).hexdigest()[:16]}"
    alive = this_server().replace(":", "-")
    tags = [f"{ours}-{os.getpid()}-1.5-{'0' * 16}", f"{ours}-{alive}-{'0' * 16}", f"from-{'0' * 16}-1-1.5-{'0' * 16}"]
    for tag in tags:
        engine_api().tag(base, "spell", tag)
    try:
        build.remove_abandoned_names(bench.engine)
        left = engine_api().inspect_image(base)["RepoTags"]
        assert [f"spell:{tag}" in left for tag in tags] == [False, True, True]
    finally:
        for tag in tags:
            with suppress(docker.errors.ImageNotFound):
                engine_api().remove_image(f"spell:{tag}")


def test_the_folder_of_a_build_can_be_found_again(
    bench: Bench, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path_with_buildkit(bench.engine))
    found: list[str] = []

    def cancelled() -> bool:
        found.extend(path.name for path in bench.engine.home.environments.glob(".building-image-*-*"))
        return bool(found)

    with pytest.raises(BuildCancelled):
        bench.ensure(tiny("sleep 1000"), "x", cancelled=cancelled)
    assert lock_path(Path(), key_of_orphan(found[0])).name.startswith(".lock-image-")
    assert not list(bench.engine.home.environments.glob(".building-*"))


def test_images_for_gpus_are_told_to_the_driver(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    image = bench.ensure(tiny(), "x", gpu=True)
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in engine_api().inspect_image(image.id)["Config"]["Env"]


def test_an_image_without_python_gets_one(bench: Bench, make_base: Callable[[str], str]) -> None:
    base = make_base(f"FROM {TEST_IMAGE}\nRUN apt-get purge -y 'python3*' 'libpython3*'\nUSER 65534\n")
    image = bench.ensure(base)
    assert image.reference != base
    assert image.version.startswith("3.")
    assert in_container(image.id, image.python, "-c", "import json; print(1)") == "1"


def test_without_apt_no_apt_packages(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    base = tiny(more="rm apt-get")
    with pytest.raises(BuildFailed, match="has no apt, so it cannot get: tree"):
        bench.ensure(base, "tree")
    base = tiny(more="rm apt-get python3")
    with pytest.raises(BuildFailed, match=r"no Python of 3\.6 or later, and no apt"):
        bench.ensure(base)


def test_a_python_that_stays_too_old(bench: Bench, tiny: Callable[..., str]) -> None:
    with pytest.raises(BuildFailed, match=r"no Python of 3\.6 or later, and none could be installed"):
        bench.ensure(tiny(python="3.5.3"))


def test_a_base_known_only_by_its_id(bench: Bench, builder: str) -> None:
    text = TINY % {"base": TEST_IMAGE, "python": "3.9.2", "apt": "IyEvYmluL3NoCg==", "more": "true"}
    label = f"{REPOSITORY}={uuid.uuid4()}"
    text += f"LABEL {label}\n"
    said = list(engine_api().build(fileobj=io.BytesIO(text.encode()), rm=True, decode=True))
    base = [line["aux"]["ID"] for line in said if "aux" in line][-1]
    try:
        assert bench.ensure(base, "x").version == "3.9.2"
        with pytest.raises(BuildFailed):
            bench.ensure(base, "x", python="3.10")
        assert len(bench.images.gc(set(), -60, dry_run=False)) == 1
        assert engine_api().inspect_image(base)  # as the person left it, who may have its ID only
    finally:
        bench.images.gc(set(), -60, dry_run=False)
        for name in engine_api().inspect_image(base)["RepoTags"] or [base]:
            with suppress(docker.errors.APIError):  # another of these tests may have found it in the builder's cache
                engine_api().remove_image(name)


def test_f32_one_builds_and_the_other_waits(bench: Bench, tiny: Callable[..., str]) -> None:
    base, other = tiny("echo working; sleep 1"), bench.folder / "other.log"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(bench.ensure, base, "x")
        wait_for(lambda: "working" in bench.said, "the first builds")
        second = pool.submit(bench.ensure, base, "x", log=other)
        assert first.result() == second.result()
    assert "waiting" in other.read_text()
    assert "working" not in other.read_text()


# -- F33, F34: builds that fail ---------------------------------------------------------------------------------------


def test_f33_a_missing_package_is_named_and_nothing_stays(
    bench: Bench, make_base: Callable[[str], str], builder: str
) -> None:
    name = make_base(f"FROM {TEST_IMAGE}\nLABEL {REPOSITORY}={uuid.uuid4()}\n")  # no other build shares its layers
    base = bench.ensure(name).id
    with pytest.raises(BuildFailed) as caught:
        bench.ensure(name, "nosuch-package")
    assert "Unable to locate package nosuch-package" in caught.value.message
    assert re.search(r"step \d+/\d+ \(RUN\)", caught.value.message)
    assert name in caught.value.message
    assert "package" in caught.value.cure
    assert "Reading package lists" in bench.said
    assert caught.value.message in bench.said
    named = set(re.findall(r"\b[0-9a-f]{12}\b", bench.said)) - {base[7:19]}
    assert len(named) >= 4 or builder == "buildkit"
    there = all_images() | {item["Id"] for item in engine_api().containers(all=True)}
    assert [item for item in there if item.removeprefix("sha256:")[:12] in named] == []
    assert list(bench.engine.home.environments.glob(".lock-*")) == []


def test_f33_a_failure_is_told_to_who_waited_and_not_kept(bench: Bench, tiny: Callable[..., str]) -> None:
    base, other = tiny("echo trying; sleep 1; echo broken; exit 7"), bench.folder / "other.log"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(bench.ensure, base, "x")
        wait_for(lambda: "trying\n" in bench.said, "the first builds")
        second = pool.submit(bench.ensure, base, "x", log=other)
        for failed in (first.exception(), second.exception()):
            assert isinstance(failed, BuildFailed)
            assert failed.message.endswith(": broken.")
    assert "trying\n" in other.read_text()
    with pytest.raises(BuildFailed):
        bench.ensure(base, "x")
    assert bench.said.count("trying\n") == 2


def test_f34_a_silent_build_is_given_up(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    apt, token = hanging()
    bench.images = Images(bench.engine, DockerConfig(idle_limit_s=1.5))
    base = tiny(apt)
    with pytest.raises(BuildFailed, match=r"the engine sent nothing for 1\.5 s") as caught:
        bench.ensure(base, "x")
    assert "idle_limit_s" in caught.value.cure
    assert "waiting" in bench.said
    wait_for(lambda: not bearing(token) and not containers_on(base), "the end of the build")


def test_a_cancelled_build_leaves_nothing(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    apt, token = hanging()
    base = tiny(apt)
    cancel = threading.Event()
    with ThreadPoolExecutor() as pool:
        future = pool.submit(bench.ensure, base, "x", cancelled=cancel.is_set)
        wait_for(lambda: bearing(token), "the build hangs")
        since = time.monotonic()
        cancel.set()
        assert isinstance(future.exception(DEADLINE_S), BuildCancelled)
        assert time.monotonic() - since < 6
    wait_for(lambda: not bearing(token) and not containers_on(base), "the end of the build")
    assert not bearing(str(bench.engine.home.root))


def test_a_cancelled_look_leaves_nothing(bench: Bench, tiny: Callable[..., str]) -> None:
    token = hanging()[1]
    base = tiny(more=f"printf '#!/bin/sh\\nexec sleep {token}\\n' > python3")
    cancel = threading.Event()
    with ThreadPoolExecutor() as pool:
        future = pool.submit(bench.ensure, base, cancelled=cancel.is_set)
        wait_for(lambda: bearing(token), "python3 hangs")
        cancel.set()
        assert isinstance(future.exception(DEADLINE_S), BuildCancelled)
    assert containers(bench.engine) == []
    wait_for(lambda: not bearing(token), "the end of python3")


def test_f38_a_full_disk_is_told_as_such(bench: Bench, tiny: Callable[..., str], builder: str) -> None:
    base = tiny("echo 'cannot copy: No space left on device'; echo 'E: dpkg returned an error code (1)'; exit 100")
    with pytest.raises(DiskFull):
        bench.ensure(base, "x")


def test_an_engine_that_is_not_there_is_no_failed_build(tmp_path: Path) -> None:
    bench = Bench(Engine(Home(tmp_path), f"unix://{tmp_path}/none"), tmp_path)
    with pytest.raises(EngineError, match="does not answer"):
        bench.ensure()


def test_orphans_of_a_killed_server_are_no_trouble(bench: Bench) -> None:
    bench.ensure()
    lock = lock_path(bench.engine.home.environments, "image-0123")
    lock.touch()
    environments = Environments(bench.engine.home, {})
    environments.start()
    environments.close()
    assert not lock.exists()
    assert (bench.engine.home.environments / ".images").exists()


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_proxies_and_certificates_are_not_in_the_image(
    bench: Bench, tiny: Callable[..., str], builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = bench.folder / "ca.pem"
    ca.write_text("THE-CERTIFICATE")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(ca))
    monkeypatch.setenv("https_proxy", "http://person:PASSWORD@proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", "inside.invalid")
    saw = "echo proxy $https_proxy $NO_PROXY; [ -f /run/spell-ca.crt ] && cat /run/spell-ca.crt && echo; echo saw $*"
    image = bench.ensure(tiny(f"{saw} # {os.urandom(8).hex()}"), "x")  # a step that was built before says nothing
    assert "@proxy.invalid:3128 inside.invalid" in bench.said
    if builder == "buildkit":
        assert "THE-CERTIFICATE" in bench.said
        assert "CaInfo=/run/spell-ca.crt" in bench.said
    else:
        assert "does not have the certificates" in bench.said
    found = whole(image.reference)
    for secret in (b"THE-CERTIFICATE", b"PASSWORD", b"proxy.invalid", b"inside.invalid"):
        assert secret not in found
    assert b"PASSWORD" not in bench.log.read_bytes()


# -- collected --------------------------------------------------------------------------------------------------------


def test_only_images_that_nobody_needs_are_collected(bench: Bench, tiny: Callable[..., str]) -> None:
    base = tiny()
    kept, busy, recent, named, old = (bench.ensure(base, name) for name in ("kept", "busy", "recent", "named", "old"))
    engine_api().tag(named.id, REPOSITORY, "mine")
    container = engine_api().create_container(busy.id, "true")["Id"]
    for image in (kept, busy, named, old):
        os.utime(bench.engine.home.environments / ".images" / f"{image.id[7:]}.json", (0, 0))
    try:
        told = bench.images.gc({kept.id}, 3600, dry_run=True)
        assert [item.what for item in told] == [f"image {old.reference}"]
        assert bench.images.gc({kept.id}, 3600, dry_run=False) == told
        assert bench.images.gc({kept.id}, 3600, dry_run=False) == []
    finally:
        engine_api().remove_container(container, force=True)
        engine_api().remove_image(f"{REPOSITORY}:mine")
    left = all_images()
    assert {kept.id, busy.id, recent.id, named.id} <= left
    assert old.id not in left
    assert bench.ensure(base, "old").reference == old.reference


def test_an_image_used_while_they_are_collected_stays(
    bench: Bench, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bench.ensure(tiny(), "x")
    measured = bench.images._removed

    def removed(found: dict[str, Any]) -> RemovedRecord:
        bench.ensure(tiny(), "x")
        return measured(found)

    with monkeypatch.context() as patched:
        patched.setattr(bench.images, "_removed", removed)
        assert bench.images.gc(set(), 0, dry_run=False) == []
    assert image.id in all_images()


# -- registries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A small environment that stands on the test image."""
    root = tmp_path / "environment"
    site = root / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to("/usr/bin/python3")
    (root / "bin" / "tool").write_text("#!/bin/sh\nexec python -c 'import ours; print(ours.X)'\n")
    (root / "bin" / "tool").chmod(0o700)
    (root / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11\n")
    (site / "ours.py").write_text("X = 41\n")
    (site / ("a" * 120 + "é.txt")).write_bytes(b"x" * 3_000_000)
    (site / "ours.py").chmod(0o600)
    os.utime(site / "ours.py", (1e9, 1e9))
    return root


@pytest.fixture
def tag() -> Iterator[str]:
    """A name for an image, which is gone afterwards."""
    tag = f"{REPOSITORY}/baked:{uuid.uuid4().hex[:8]}"
    yield tag
    with suppress(Exception):
        engine_api().remove_image(tag)


def test_a_baked_image_holds_the_environment(bench: Bench, environment: Path, tag: str) -> None:
    base = bench.ensure()
    image = bench.images.bake(base, environment, tag, bench.log, never)
    assert image == engine_api().inspect_image(tag)["Id"]
    code = "import ours, os, sys; print(ours.X, sys.prefix, os.getcwd(), int(os.stat(ours.__file__).st_mtime))"
    assert in_container(tag, "python", "-c", code, user="1234:1234") == "41 /opt/environment /spell 1000000000"
    assert in_container(tag, "tool", user="1234:1234") == "41"
    config = engine_api().inspect_image(tag)["Config"]
    assert "VIRTUAL_ENV=/opt/environment" in config["Env"]
    assert str(bench.engine.home.root) not in json.dumps(engine_api().history(tag)) + json.dumps(config)
    assert bench.images.gc(set(), -60, dry_run=False) == []


def test_a_cancelled_bake_leaves_no_image(bench: Bench, environment: Path, tag: str) -> None:
    with (environment / "large").open("wb") as file:
        file.truncate(4 << 30)
    asked = iter(range(1 << 30))
    with pytest.raises(BuildCancelled):
        bench.images.bake(bench.ensure(), environment, tag, bench.log, lambda: next(asked) > 20)
    assert engine_api().images(tag) == []


def test_what_a_server_that_was_killed_has_baked_goes(bench: Bench, environment: Path, tag: str) -> None:
    base = bench.ensure()
    text = intermediate.marked(f"FROM {TEST_IMAGE}\nENV X=1\nENV Y=2\nRUN exit 1", bench.engine)
    said = list(engine_api().build(fileobj=io.BytesIO(text.encode()), forcerm=True, decode=True))
    assert "error" in said[-1]
    bench.images.bake(base, environment, tag, bench.log, never)
    left = bench.images.gc(set(), -60, dry_run=True)
    assert len(left) == 2, "two variables; not the label, which is a step of the baked one, too"
    assert bench.images.gc(set(), 3600, dry_run=True) == []
    assert bench.images.gc(set(), -60, dry_run=False) == left
    assert bench.images.gc(set(), -60, dry_run=False) == []
    assert in_container(tag, "tool", user="1234:1234") == "41"
    assert engine_api().inspect_image(tag)["Config"]["Labels"]["spell.step"] == ""


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    with closing(BuildLog(tmp_path / "log")) as log:
        said = build.Transcript(Watch(log, never, 60, "x"))
        began = time.thread_time()
        for _ in range(1000):
            said.take("x" * 65536)
        said.end()
        assert time.thread_time() - began < 10
    lines = (tmp_path / "log").read_bytes().split()
    assert sum(map(len, lines)) == 65536000 and max(map(len, lines)) < 1 << 18


@pytest.mark.parametrize("tag", ["", "UPPER", "a b", "-x", "x:", "x:a b", "x@sha256:00", "a//b", "a" * 300, "0" * 64])
def test_names_that_no_image_can_have(bench: Bench, tag: str) -> None:
    with pytest.raises(InvalidConfig):
        bench.images.push(tag, bench.log, never)


@dataclass
class Registry:
    """A registry on this machine that asks for a login."""

    address: str
    config: Path

    def log_in(self, password: str = LOGIN[1]) -> None:
        """What `docker login` leaves behind."""
        auth = base64.b64encode(f"{LOGIN[0]}:{password}".encode()).decode()
        self.config.mkdir(exist_ok=True)
        (self.config / "config.json").write_text(json.dumps({"auths": {self.address: {"auth": auth}}}))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A private registry, and a person who has not logged in yet."""
    need_engine()
    program = shutil.which("docker-registry")
    if program is None:
        go_without("docker-registry is not installed; tests/engine/up installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        host, port = address.split(":")
        wait_for(lambda: socket.socket().connect_ex((host, int(port))) == 0, "the registry listens")
        yield Registry(address, tmp_path / "docker")
    finally:
        process.kill()
        process.wait()


def test_images_go_to_a_private_registry_and_come_back(
    bench: Bench, registry: Registry, tiny: Callable[..., str], environment: Path
) -> None:
    tag = f"{registry.address}/team/tiny:1"
    base = bench.ensure(tiny())
    image = bench.images.bake(base, environment, tag, bench.log, never)
    try:
        with pytest.raises(BuildFailed, match="could not be pushed") as caught:
            bench.images.push(tag, bench.log, never)
        assert "docker login" in caught.value.cure
        registry.log_in("wrong")
        with pytest.raises(BuildFailed, match="could not be pushed"):
            bench.images.push(tag, bench.log, never)
        registry.log_in()
        bench.images.push(tag, bench.log, never)
        assert "Pushed" in bench.said
        assert len(bench.said.splitlines()) < 66
    finally:
        engine_api().remove_image(tag)
    assert engine_api().images(tag) == []
    shutil.rmtree(registry.config)
    with pytest.raises(BuildFailed, match="could not be pulled") as caught:
        bench.ensure(tag)
    assert "docker login" in caught.value.cure
    registry.log_in()
    with pytest.raises(BuildFailed, match=r"could not be pulled.*not found|manifest unknown"):
        bench.ensure(tag.replace(":1", ":2").replace("127.0.0.:2", "127.0.0.1"))
    log = bench.folder / "pull.log"
    try:
        pulled = bench.ensure(tag, log=log)
        assert (pulled.id, pulled.reference, pulled.version) == (image, tag, "3.9.1")
        assert pulled.path.startswith("/opt/environment/bin:")
        assert f"Pulling {tag}" in log.read_text()
    finally:
        engine_api().remove_image(tag)
