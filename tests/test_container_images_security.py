"""What a hostile image, build or requirements file can do to the host, to the server and to other runs: nothing.

What a run has replaced the Python by that its reaper runs on is such an image, too: so a reaper may lie.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import Spell, wait_for
from engines import TEST_IMAGE, containers_of, engine_api, need_engine
from test_container_environments import make_sdist
from test_container_floods import CONFIG, SOON_S, answers
from wheels import make_wheel

from orchestrator.data.identity import identify
from orchestrator.engine import Engine
from orchestrator.environments import Container, installed
from orchestrator.environments.orphans import CONTAINERS, PROCESS_FILE, discard
from orchestrator.errors import InvalidConfig
from orchestrator.home import Home
from orchestrator.spec.run import RequirementFile

pytestmark = pytest.mark.engine

REPOSITORY = "spell-test-security"

# In front of the image's Python. As a reaper it does what the command says; as what starts the programs of a build, what
# /build.py says; else it is the Python that it stands before.
LIAR = r"""#!/usr/bin/python3 -IS
import marshal, os, signal, sys
args = " ".join(sys.argv[1:])
if "request-" in args and "orchestrator" in args:
    inside = sys.argv[-2]
    command = marshal.load(open(inside + "/" + sys.argv[-1], "rb"))["command"]
    if command.startswith("lie:"):
        line = os.open(inside + "/line", os.O_RDWR)
        os.unlink(inside + "/" + sys.argv[-1])
        def say(text):
            os.write(line, text.encode())
        def end(text, size=0):
            with open(inside + "/result", "w") as file:
                file.write(text)
                file.truncate(max(size, len(text)))
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        exec(command[4:])
        sys.exit()
if "queue.Queue" in args and os.path.exists("/build.py"):
    exec(open("/build.py").read())
os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv[1:]])
"""
STARTED = "say('{\"started_at\": 1}\\n'); "
VERDICT = (
    '{"version": 1, "error": null, "exit_code": 0, "signal": null, "timed_out": false, "max_rss_bytes": 0,'
    ' "started_at": 1, "ended_at": 2, "duration_s": 1, "cpu_time_s": 0, "out_of_memory": false, "oom_kills": 0,'
    ' "disk_full": false}'
)


@pytest.fixture(scope="module")
def make_image() -> Iterator[Callable[..., str]]:
    """Make an image that stands on the test image, with the liar in it, by these lines of a Dockerfile."""
    need_engine()
    made: list[str] = []

    def file(text: str, path: str) -> str:
        return f"RUN echo {base64.b64encode(text.encode()).decode()} | base64 -d > {path} && chmod 755 {path}"

    def make(*lines: str, build: str = "") -> str:
        more = [file(build, "/build.py")] if build else []
        text = "\n".join([f"FROM {TEST_IMAGE}", file(LIAR, "/usr/local/bin/python3"), *more, *lines])
        made.append(f"{REPOSITORY}:{uuid.uuid4().hex}")
        said = list(engine_api().build(fileobj=io.BytesIO(text.encode()), tag=made[-1], rm=True, decode=True))
        assert "error" not in said[-1], said[-1]
        return made[-1]

    yield make
    for tag in made:
        with suppress(Exception):
            engine_api().remove_image(tag, force=True)


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests share."""
    return make_shared("images", config=CONFIG, docker=True)


@pytest.fixture(scope="module")
def liar(make_image: Callable[..., str]) -> str:
    return make_image()


def victim(folder: Path) -> Path:
    """A folder of the host that nobody may touch."""
    made = folder / "victim"
    (made / "venv").mkdir(parents=True)
    (made / ".gitignore").write_text("mine\n")
    (made / "secret").write_text("secret of the host\n")
    return made


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    files = sorted(folder.rglob("*"))
    return {str(path): (path.stat().st_mode, path.read_text() if path.is_file() else "") for path in [folder, *files]}


# -- what an image says about itself ---------------------------------------------------------------------------------


def own_labels(spell: Spell) -> str:
    """The labels by which the server of this home knows what is its own."""
    return f"spell.home={spell.home.root} spell.key={identify(spell.home).key}"


def test_what_an_image_says_about_itself_changes_nothing(spell: Spell, make_image: Callable[..., str]) -> None:
    spell.client.server.get()  # which gives the home its key
    image = make_image(
        'ENTRYPOINT ["/bin/false"]',
        'CMD ["/bin/false"]',
        "USER 1234:4321",
        "WORKDIR /nowhere",
        "VOLUME /spell /home/spell /opt/spell /opt/spell/inside /data",
        "HEALTHCHECK --interval=1s CMD touch /spell/health",
        "STOPSIGNAL SIGKILL",
        "ENV LD_PRELOAD=/no/such.so PYTHONPATH=/spell PYTHONSTARTUP=/spell/x BASH_ENV=/spell/x",
        "ENV SPELL_RUN=77 PATH=/usr/local/bin:/usr/bin:/bin PYTHONINSPECT=1",
        "ONBUILD RUN touch /onbuild",
        f"LABEL {own_labels(spell)} spell.role=run spell.run=999 spell.attempt=none spell.server=1",
    )
    volumes = {volume["Name"] for volume in engine_api().volumes()["Volumes"] or ()}
    run = spell.run(
        "trap 'exit 9' TERM; id -u; pwd; echo $SPELL_RUN; ls; mount | grep -c ' /data '; exit 4", image=image
    )
    assert (run.state, run.exit_code, run.outputs_count) == ("failed", 4, 0), run.message
    user, folder, number, mounted = [
        line for line in spell.log(run.number).decode().splitlines() if "such.so" not in line
    ]
    assert (user, folder, number, mounted) == (str(os.getuid()), "/spell", str(run.number), "1")
    wait_for(lambda: not containers_of(spell.home), "its container is gone")

    def left() -> list[str]:
        """Volumes that came meanwhile and that no container has; another test's is so for a moment, while it goes."""
        names = {volume["Name"] for volume in engine_api().volumes()["Volumes"] or ()} - volumes
        return [name for name in names if not engine_api().containers(all=True, filters={"volume": name})]

    wait_for(lambda: not left(), "its anonymous volumes are gone")


def test_labels_of_an_image_make_nothing_ours(make_spell: Callable[..., Spell], make_image: Callable[..., str]) -> None:
    """Who starts a container of such an image keeps it, and the server that looks at it goes on."""
    spell = make_spell(config=CONFIG, docker=True)
    assert spell.run("true").state == "complete"
    api, made = engine_api(), []
    labels = {"run": "spell.run=x", "build": "spell.server=1:1", "image": "spell.base=../../containers"}
    for role, more in {**labels, "run ": "spell.run=1 spell.attempt=1"}.items():
        image = make_image(f"LABEL {own_labels(spell)} spell.role={role} {more}")
        made.append(api.create_container(image, ["true"], name=f"{REPOSITORY}-{uuid.uuid4().hex}")["Id"])
    try:
        assert spell.client.gc.remove(0.0).warnings == []
        spell.kill_server()
        assert spell.run("true").state == "complete"
        assert {item["Id"] for item in containers_of(spell.home)} >= set(made)
    finally:
        for container in made:
            api.remove_container(container, force=True)


def test_an_image_that_does_not_stop_talking_is_given_up(spell: Spell, make_image: Callable[..., str]) -> None:
    image = make_image(
        "RUN printf 'import os\\nwhile True: os.write(1, b\"y\" * 9999)' > /yes && "
        "printf '#!/usr/bin/python3 -IS\\nexec(open(\"/yes\").read())' > /usr/bin/sh2 && chmod 755 /usr/bin/sh2 && "
        "mv /usr/bin/sh2 /bin/sh"
    )
    run = spell.run("true", image=image)
    assert (run.state, "the output of its shell does not end" in run.message) == ("build_failed", True), run.message


def test_what_looks_into_images_and_what_builds_has_no_rights(
    spell: Spell, make_image: Callable[..., str], tmp_path: Path
) -> None:
    """Both run what is in an image, before the run and its own limits."""
    told = "open(PLACE, 'a').write(open('/proc/self/status').read() + open('/sys/fs/cgroup/pids/pids.max').read())"
    build = f"import glob\nPLACE = glob.glob('{spell.home.environments}/.containers')[0] + '/told'\n{told}"
    image = make_image(build=build)
    run = spell.run("true", image=image)
    assert run.state == "complete", run.message
    words = (spell.home.environments / ".containers/told").read_text()
    assert "CapEff:\t0000000000000000" in words and "CapBnd:\t0000000000000000" in words
    assert "NoNewPrivs:\t1" in words and words.splitlines()[-1].isdigit()


# -- a reaper that lies ----------------------------------------------------------------------------------------------

NO_ERROR = '"error": null'
REASON = '"error": {"reason": "kill_requested", "detail": ""}'
ODD_REASON = '"error": {"reason": [], "detail": ""}'
GARBAGE = {
    "no json": "say('x\\n')",
    "a list": "say('[1]\\n')",
    "an odd error": 'say(\'{"error": {"x": 1}}\\n\'); import time; time.sleep(1000)',
    "an error that is none": "say('{\"error\": 5}\\n')",
    "taken": "say('{\"taken\": true}\\n'); import time; time.sleep(1000)",
    "a text that is none": 'say(\'{"error": {"detail": "\\\\ud800"}}\\n\'); import time; time.sleep(1000)',
    "no result": STARTED,
    "a result of nothing": STARTED + "end('{}')",
    "a result that is a list": STARTED + "end('[]')",
    "a deep result": STARTED + "end('[' * 200000)",
    "a result without end": STARTED + "end('x', 1 << 42)",
    "a result of other types": STARTED + f"end({VERDICT.replace('null', '[]')!r})",
    "a reason that is a list": STARTED + f"end({VERDICT.replace(NO_ERROR, ODD_REASON)!r})",
    "an end that nobody may tell": STARTED + f"end({VERDICT.replace(NO_ERROR, REASON)!r})",
    "numbers without end": STARTED + f"end({VERDICT.replace('2,', '1e999,')!r})",
    "errors without end": "os.truncate(inside + '/errors', 1 << 42)",
}


@pytest.mark.parametrize("lie", GARBAGE)
def test_nonsense_of_a_reaper_is_a_failure_and_no_more(spell: Spell, liar: str, lie: str) -> None:
    run = spell.run(f"lie:{GARBAGE[lie]}", image=liar)
    assert run.state == "failed" and run.message, run
    wait_for(lambda: not containers_of(spell.home), "its container is gone")
    answers(spell)


def test_a_reaper_that_does_not_listen_is_killed(spell: Spell, liar: str) -> None:
    number = spell.cast(f"lie:{STARTED}import time; time.sleep(1000)", image=liar)
    spell.reaches(number, "running")
    spell.client.runs.kill(str(number))
    assert spell.ended(number).state == "killed"
    wait_for(lambda: not containers_of(spell.home), "its container is gone")


def test_a_reaper_that_talks_on_and_on_holds_up_nobody(spell: Spell, liar: str) -> None:
    number = spell.cast(f"lie:{STARTED}\nwhile True: say('x' * 4096)", image=liar)
    spell.reaches(number, "running")
    answers(spell)
    began = psutil.Process(spell.server_pid).cpu_times()
    answers(spell)
    spell.client.runs.kill(str(number))
    assert spell.ended(number).state == "killed"
    assert psutil.Process(spell.server_pid).cpu_times().user - began.user < SOON_S


def test_nothing_is_saved_while_a_reaper_lives_that_says_it_is_dead(spell: Spell, liar: str, tmp_path: Path) -> None:
    """Its processes could lead the server out of the work dir, by links in place of folders."""
    place = victim(tmp_path)
    os.chmod(place, 0o700)
    before = contents(place)
    swap = f"""lie:{STARTED}
os.chdir('/spell'); end({VERDICT!r})
os.mkdir('aside'); os.mkdir('d'); open('d/secret', 'w').write('x'); open('aside/x', 'w').write('x')
os.close(line)
os.symlink({str(place)!r}, 'link')
while True:
    for step in (('d', 'mine'), ('link', 'd'), ('d', 'link'), ('mine', 'd')):
        try: os.rename(*step)
        except OSError: pass
"""
    run = spell.run(swap, image=liar)
    assert not containers_of(spell.home, status="running")
    assert run.state in ("complete", "failed")
    assert contents(place) == before
    texts = [path.read_text() for path in spell.home.run_dir(run.number).rglob("*") if path.is_file()]
    assert "secret of the host\n" not in texts


# -- builds ----------------------------------------------------------------------------------------------------------

TRAPS = """import glob, os, shutil
def lead(path):
    shutil.rmtree(path, ignore_errors=True)
    try: os.symlink(VICTIM, path)
    except OSError: pass
for found in glob.glob(HOME + "/.containers/.*") + glob.glob(HOME + "/.*/cwd/*") + glob.glob(HOME + "/.*/local/*"):
    lead(found)
if os.fork() == 0:
    for _ in range(3000):
        for found in glob.glob(HOME + "/.containers/.building-*"):
            WHERE
    os._exit(0)
"""


@pytest.mark.parametrize("where", ["lead(found)", 'lead(found + "/venv")', 'lead(found + "/venv/lib")', "pass"])
def test_a_build_leads_nobody_out_of_its_folder(
    spell: Spell, make_image: Callable[..., str], tmp_path: Path, where: str
) -> None:
    """By links in place of what the server writes, reads, moves or publishes."""
    place = victim(tmp_path)
    before = contents(place)
    build = f"VICTIM, HOME = {str(place)!r}, {str(spell.home.environments)!r}\n" + TRAPS.replace("WHERE", where)
    wheel = make_wheel(tmp_path, "tiny", code=f"PLACE = {where!r}\n")
    file = RequirementFile("requirements.txt", "# ours\n")
    command = f"ls /opt/spell/environment/ /opt/spell/environment/lib/; cat {place}/secret"
    run = spell.run(command, image=make_image(build=build), pip=(str(wheel),), requirements=(file,))
    assert contents(place) == before
    assert run.state in ("build_failed", "failed", "complete") and run.message
    assert b"secret" not in spell.log(run.number).replace(b"/secret", b"")
    assert all(path.is_dir() and not path.is_symlink() for path in spell.home.environments.glob("[0-9a-f]*"))
    answers(spell)


LYING_DRIVER = """import json, os, sys
for line in sys.stdin:
    order = json.loads(line)
    venv = next((word for word in order["command"] if word.endswith("/venv")), "")
    if order["command"][1] == "venv":
        HOW
    os.write(1, ("\\0" + order["end"] + "0\\0").encode())
"""


@pytest.mark.parametrize(
    "how",
    [
        "os.symlink(VICTIM, venv)",
        "os.rmdir(os.path.dirname(venv)); os.symlink(VICTIM, os.path.dirname(venv))",
        "os.mkfifo(venv)",
        "pass",
    ],
)
def test_only_a_folder_of_the_builds_own_is_published(
    spell: Spell, make_image: Callable[..., str], tmp_path: Path, how: str
) -> None:
    """A folder of the host that looks like an environment would be shown to the run."""
    place = victim(tmp_path)
    for folder in (place, place / "venv"):
        (folder / "lib/python3.11/site-packages").mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text("")
        (folder / "pyvenv.cfg").write_text("version_info = 3.11.2\nimplementation = CPython\n")
    before = contents(place)
    image = make_image(build=f"VICTIM = {str(place)!r}\n" + LYING_DRIVER.replace("HOW", how))
    run = spell.run("ls /opt/spell/environment", image=image)
    assert contents(place) == before
    assert (run.state, "did not produce a Python environment" in run.message) == ("build_failed", True), run.message
    assert not spell.log(run.number)


LOOK = """
import os, sys
def build_wheel(*_, **__):
    sys.exit("seen: " + " ".join(sorted(f"{p}={os.path.exists(p)}" for p in PLACES)))
"""


def looking(folder: Path, *places: Path) -> Path:
    """A project whose build fails, and tells which of these places it has seen."""
    folder.mkdir(parents=True)
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(f'{project}[project]\nname = "looking"\nversion = "1.0"\n')
    (folder / "backend.py").write_text(f"PLACES = {[str(place) for place in places]}\n{LOOK}")
    return folder


def test_a_requirements_file_shows_a_build_packages_only(spell: Spell, tmp_path: Path) -> None:
    """`--find-links` may name any folder of this machine, that of the engine's socket among them."""
    links = tmp_path / "links"
    secret, hidden = links / "id_rsa", links / "deep/secret"
    hidden.parent.mkdir(parents=True)
    for path in (secret, hidden, tmp_path / "key", links / "fake-1.0-py3-none-any.whl"):
        path.write_text("secret of the host\n")
    (links / "linked-1.0-py3-none-any.whl").symlink_to(tmp_path / "key")
    wheel = make_wheel(links, "tiny")
    sdist = make_sdist(links, "sources")
    places = (secret, hidden, links / "linked-1.0-py3-none-any.whl", links / "fake-1.0-py3-none-any.whl", wheel, sdist)
    project = looking(tmp_path / "looking", *places, Path("/var/run/docker.sock"))
    file = RequirementFile("requirements.txt", f"--find-links {links}\n--find-links=/var/run\n--no-index\n")
    number = spell.run("true", pip=(str(project),), requirements=(file,)).number
    text = spell.home.build_log(number).read_text().partition("seen: ")[2].partition("\n")[0]
    assert f"{wheel}=True" in text and f"{sdist}=True" in text, text
    assert (text.count("=True"), text.count("=False")) == (2, len(places) - 2 + 1), text
    good = RequirementFile("requirements.txt", f"--find-links {links}\n--no-index\ntiny\n")
    assert spell.run("python -c 'import tiny'", requirements=(good,)).state == "complete"


@pytest.mark.parametrize("option", ["--index-url", "--extra-index-url"])
def test_a_requirements_file_shows_a_build_no_folder_as_an_index(spell: Spell, tmp_path: Path, option: str) -> None:
    file = RequirementFile("requirements.txt", f"{option} {(tmp_path).as_uri()}\nsix\n")
    run = spell.run("true", requirements=(file,))
    assert run.state == "build_failed" and str(tmp_path) in run.message and "index" in run.message


@pytest.mark.parametrize("line", ["{}", "x @ file://{}", "file://{}", "x @ {}"])
@pytest.mark.parametrize("name", ["secret", "secret.whl", "linked.tar.gz", "folder", "pipe"])
def test_a_requirement_names_packages_only(spell: Spell, tmp_path: Path, line: str, name: str) -> None:
    """What it names is shown to the build: neither a key nor a folder of keys is one, whatever it is called."""
    for secret in ("secret", "secret.whl"):
        (tmp_path / secret).write_text("secret of the host\n")
    (tmp_path / "linked.tar.gz").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="neither a package nor"):
        spell.cast("true", pip=(line.format(tmp_path / name),))


def test_what_a_build_leaves_is_read_with_care(tmp_path: Path) -> None:
    info = tmp_path / "lib/python3.11/site-packages/x-1.dist-info"
    info.mkdir(parents=True)
    os.mkfifo(info / "RECORD")
    (info / "METADATA").symlink_to("/dev/zero")
    (info / "direct_url.json").symlink_to("/etc/passwd")
    (tmp_path / "pyvenv.cfg").symlink_to("/dev/zero")
    (found,) = installed.distributions(tmp_path)
    assert (found.frozen, found.size_bytes) == ("x==1", 0)
    with pytest.raises(FileNotFoundError):
        installed.python_of(tmp_path)
    with (info / "big").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileNotFoundError):
        installed.read_inside(tmp_path, info / "big")


def test_a_build_cannot_fill_the_memory_of_the_server(tmp_path: Path) -> None:
    """A NUL begins what ends an output; behind it nothing is kept for long."""
    need_engine()
    engine = Engine(Home(tmp_path / "home"))
    image = engine.api.inspect_image(TEST_IMAGE)["Id"]
    sizes: list[int] = []
    command = ["sh", "-c", "printf '\\0'; head -c 30000000 /dev/zero | tr '\\0' x"]
    began = time.monotonic()
    code = Container(engine, image, "/usr/bin/python3").run(
        command,
        cwd=Path("/"),
        env={},
        process_file=tmp_path / "r",
        output=lambda data: sizes.append(len(data)),
        cancelled=bool,
    )
    assert (code, sum(sizes)) == (0, 30000001)
    assert max(sizes) < 1 << 20 and time.monotonic() - began < SOON_S


def test_the_note_of_a_build_is_no_order(tmp_path: Path) -> None:
    """A container can write to its build; what a later server finds there, it does not act on."""
    folder = tmp_path / CONTAINERS / ".building-x-y"
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        note = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        (folder / PROCESS_FILE).write_text(json.dumps(note))
        discard(folder)
        assert process.poll() is None and not folder.exists()
        process.kill()
