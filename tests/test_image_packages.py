"""What an image has, the runs in it have: its packages, its virtual environment, its variables."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell
from containers import config, remove_images
from engines import TEST_IMAGE, engine_api
from wheels import make_wheel

pytestmark = pytest.mark.engine

SITE = "/usr/local/lib/python3.11/dist-packages"
USER_SITE = "/srv/app/.local/lib/python3.11/site-packages"
SEEN = """
import importlib, json, os, sys
found = {}
for name in ("of_system", "of_venv", "of_path", "of_user", "added"):
    try:
        found[name] = importlib.import_module(name).VERSION
    except ImportError:
        found[name] = None
print(json.dumps({**found, "prefix": sys.prefix, **{name: os.environ.get(name) for name in sys.argv[1:]}}))
"""
INSTALL = """
set -e
install="install -q --no-index --find-links {wheels}"
pip $install one
python3 -m pip $install --user two
pip3 $install three
uv pip $install four
python3 -c 'import one, two, three, four; print(*(module.__file__ for module in (one, two, three, four)))'
one; four
python3 -c 'import pip; print(*pip.__path__)'
"""
OWN = """
python3 -m venv own
own/bin/pip $install mine
own/bin/python -m pip $install yours
python3 -c 'import mine' 2>&- || echo hidden
. own/bin/activate
pip $install ours
uv pip $install last
python -c 'import mine, yours, ours, last, pip; print(*(module.__file__ for module in (mine, yours, ours, last, pip)))'
"""
SCRIPT = "import json, sys, added; print(json.dumps([sys.prefix, added.VERSION]))"


def _made(dockerfile: str, wheels: list[Path]) -> str:
    """An image by a Dockerfile that finds these wheels in /wheels."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in [
            ("Dockerfile", dockerfile.encode()),
            *((f"wheels/{w.name}", w.read_bytes()) for w in wheels),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data.seek(0)
    tag = f"spell-test-has:{uuid.uuid4().hex}"
    told = list(engine_api().build(fileobj=data, custom_context=True, tag=tag, rm=True, decode=True))
    assert "error" not in told[-1], told[-1]
    return tag


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spell]:
    spell = make_shared("images", config=config(tmp_path_factory.getbasetemp()))
    yield spell
    remove_images(spell)


@pytest.fixture(scope="module")
def image(shared: Spell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """It has a package for its Python, one on its PYTHONPATH, and one in the home of its USER."""
    folder = tmp_path_factory.mktemp("wheels")
    wheels = [make_wheel(folder, name) for name in ("of_system", "of_path", "of_user")]
    tag = _made(
        f"FROM {TEST_IMAGE}\nCOPY wheels /wheels\n"
        f"RUN python3 -m zipfile -e /wheels/of_system-1.0-py3-none-any.whl {SITE}"
        " && python3 -m zipfile -e /wheels/of_path-1.0-py3-none-any.whl /opt/lib"
        " && useradd --create-home --home-dir /srv/app app && chmod 755 /srv/app"
        f" && python3 -m zipfile -e /wheels/of_user-1.0-py3-none-any.whl {USER_SITE}\n"
        "ENV PYTHONPATH=/opt/lib TZ=Asia/Tokyo\nUSER app\n",
        wheels,
    )
    yield tag
    engine_api().remove_image(tag, force=True)


@pytest.fixture(scope="module")
def image_with_venv(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """It has a virtual environment on its PATH, with a command for the Python there."""
    wheel = make_wheel(
        tmp_path_factory.mktemp("wheels"), "of_venv", code=f"VERSION = '1.0'\ndef main(): exec({SCRIPT!r})\n"
    )
    tag = _made(
        f"FROM {image}\nUSER root\nCOPY wheels /wheels\nRUN python3 -m venv /opt/venv"
        " && /opt/venv/bin/pip install --no-index /wheels/of_venv-1.0-py3-none-any.whl\n"
        "ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv\n",
        [wheel],
    )
    yield tag
    engine_api().remove_image(tag, force=True)


@pytest.fixture(scope="module")
def image_with_pip(image: str) -> Iterator[str]:
    """Its distribution has installed pip, and forbids to install packages beside its own."""
    place = "/usr/lib/python3/dist-packages"
    script = "#!/usr/bin/python3\\nfrom pip._internal.cli.main import main\\nraise SystemExit(main())\\n"
    tag = _made(
        f"FROM {image}\nUSER root\nRUN python3 -m zipfile -e /usr/share/python-wheels/pip-*.whl {place}"
        f" && printf '{script}' > /usr/bin/pip && chmod 755 /usr/bin/pip && cp /usr/bin/pip /usr/bin/pip3"
        " && ! pip install --no-index one > said 2>&1 && grep externally-managed said\n",
        [],
    )
    yield tag
    engine_api().remove_image(tag, force=True)


def seen(spell: Spell, image: str, python: str = "python", pip: tuple[Path, ...] = (), more: str = "true") -> list:
    """What a run in the image finds, and what `more` says."""
    names = "PATH PYTHONPATH VIRTUAL_ENV TZ"
    run = spell.run(f"{python} -c '{SEEN}' {names}; {more}", image=image, pip=tuple(map(str, pip)))
    assert run.state == "complete", spell.log(run.number).decode() + str(run.message)
    return [json.loads(line) for line in spell.log(run.number).splitlines()]


def test_who_asks_for_nothing_has_the_image_as_it_is(shared: Spell, image: str, image_with_venv: str) -> None:
    (found,) = seen(shared, image, "python3")
    assert (found["of_system"], found["of_path"], found["of_user"], found["prefix"]) == ("1.0", "1.0", "1.0", "/usr")
    assert (
        found["PYTHONPATH"]
        == f"/spell:/opt/lib:{USER_SITE}:/opt/spell/runtime/modules:/opt/spell/runtime/as_is/modules"
        ":/opt/spell/layer/lib/python3.11/site-packages"
    )
    assert (found["VIRTUAL_ENV"], found["TZ"]) == ("/opt/spell/layer", "Asia/Tokyo")
    (named,) = seen(shared, image, "python")  # which the image has not
    assert (named["of_system"], named["of_path"]) == ("1.0", "1.0")
    (found,) = seen(shared, image_with_venv)
    assert (found["of_system"], found["of_venv"], found["of_path"]) == (None, "1.0", "1.0")
    assert (found["prefix"], found["VIRTUAL_ENV"]) == ("/opt/venv", "/opt/venv")
    assert found["PATH"].startswith("/opt/spell/runtime/tools:/opt/spell/runtime/as_is/bin:/opt/venv/bin:")


def test_what_a_run_installs_into_an_image_as_it_is(
    shared: Spell, image: str, image_with_pip: str, image_with_venv: str, tmp_path: Path
) -> None:
    """It goes into the layer, whatever pip the image has; a virtual environment made in the run keeps its own."""
    for name in ("one", "two", "three", "four", "mine", "yours", "ours", "last"):
        make_wheel(tmp_path, name)
    pips = {image: "", image_with_pip: "/usr/lib/python3/dist-packages/pip"}
    pips[image_with_venv] = "/opt/venv/lib/python3.11/site-packages/pip"
    site, ours = "lib/python3.11/site-packages", "/opt/spell/runtime/as_is/modules/pip"
    own = " ".join(
        f"/spell/own/{site}/{name}" for name in ("mine.py", "yours.py", "ours.py", "last.py", "pip/__init__.py")
    )
    for tag, pip in pips.items():
        command = INSTALL.format(wheels=tmp_path) + (OWN if tag == image_with_venv else "")
        run = shared.run(command, image=tag, machine_type="whole")
        assert shared.log(run.number).decode().splitlines() == [
            " ".join(f"/opt/spell/layer/{site}/{name}.py" for name in ("one", "two", "three", "four")),
            "one",
            "four",
            f"{ours} {pip}".rstrip(),
            *(["hidden", own] if tag == image_with_venv else []),
        ]
        (notice,) = [event.text for event in shared.client.runs.events(str(run.number)) if "Installed" in event.text]
        assert notice.startswith("Installed for this run only: four==1.0, one==1.0, three==1.0 and 1 more.")


def test_added_packages_stand_on_those_of_the_image(
    shared: Spell, image: str, image_with_venv: str, tmp_path: Path
) -> None:
    """What the image has is not installed again; what is added is found by the image's commands, too, and wins."""
    needs = "Metadata-Version: 2.1\nName: added\nVersion: 3.0\nRequires-Dist: of_venv\n"
    added = make_wheel(tmp_path, "added", "3.0", extra={"added-3.0.dist-info/METADATA": needs})
    newer = [make_wheel(tmp_path, name, "2.0") for name in ("of_path", "of_system")]
    found, by_command = seen(shared, image_with_venv, pip=(added, *newer), more="of_venv")
    assert [found[name] for name in ("of_venv", "added", "of_path", "of_system")] == ["1.0", "3.0", "2.0", "2.0"]
    assert found["PYTHONPATH"] == "/spell:/opt/lib:/opt/spell/runtime/modules"
    assert found["PATH"].startswith("/opt/spell/runtime/tools:/opt/spell/layer/bin:/opt/venv/bin:")
    assert by_command == ["/opt/spell/layer", "3.0"]
    run = shared.client.runs.get("latest")
    assert run.packages == ["added==3.0", "of_path==2.0", "of_system==2.0"]
    (found,) = seen(shared, image, pip=(newer[0],))
    assert (found["of_system"], found["of_path"], found["of_user"]) == ("1.0", "2.0", "1.0")


def test_a_baked_image_keeps_its_packages_in_runs(shared: Spell, image: str, tmp_path: Path) -> None:
    added, tag = make_wheel(tmp_path, "added", "3.0"), f"spell-test-baked:{uuid.uuid4().hex}"
    job = tmp_path / "job.yaml"
    job.write_text(f"command: x\nimage: {image}\npip: ['{added}']\n")
    done = shared("image", "build", str(job), "-t", tag)
    assert done.code == 0, done.err
    try:
        for pip in ((), (make_wheel(tmp_path, "of_path", "2.0"),)):
            (found,) = seen(shared, tag, pip=pip)
            assert (found["added"], found["of_system"], found["of_path"]) == ("3.0", "1.0", "2.0" if pip else "1.0")
    finally:
        engine_api().remove_image(tag, force=True)
