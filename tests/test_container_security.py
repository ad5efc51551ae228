"""What a spec and a workspace can do to the host, to the server and to other runs, when runs are containers: nothing.

What a run can do to its reaper and by sheer mass is in `test_container_floods.py`, hostile images and builds are in
`test_container_images_security.py`.
"""

from __future__ import annotations

import os
import shlex
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git
from engines import docker_executor, need_engine
from launches import make_launch
from test_container_floods import CONFIG, said
from wheels import make_wheel

from orchestrator.errors import InvalidConfig, MountFailed, NotFound, SpellError
from orchestrator.executors.base import Bind
from orchestrator.home import Home
from orchestrator.spec.jobfile import load
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import Code, RunSpec

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests share."""
    return make_shared("security", config=CONFIG, docker=True)


@pytest.fixture(scope="module")
def source(spell: Spell) -> int:
    """A run that left a file and a folder, and links that lead out: plainly, and by way of another link."""
    command = """echo data > data.txt; mkdir folder; echo inside > folder/file; echo y > y
        ln -s /etc etc; ln -s /etc/passwd folder/passwd; ln -s ../../.. up; ln -s folder/file kept
        mkdir -p x a/b/c/d/e/f; echo x > x/file; echo a > a/file
        ln -s ../../../../../../x a/b/c/d/e/f/z; ln -s a/b/c/d/e/f/z/../../../../../../../y fooled"""
    return spell.run(command).number


def attempted(attacks: list[str]) -> str:
    """A command that tries each attack, and says which have succeeded, or could not be tried."""
    tools = sorted({attack.split()[0] for attack in attacks})
    lines = [f"command -v {tool} > /dev/null || echo there is no {tool}" for tool in tools]
    lines += [f"( {attack} ) > /dev/null 2>&1 && echo succeeded {shlex.quote(attack)}" for attack in attacks]
    return "\n".join([*lines, "echo done"])


# -- mounts and links ------------------------------------------------------------------------------------------------

TAKEN = [
    "/proc",
    "/proc/sys/kernel",
    "/sys",
    "/dev/shm",
    "/opt/spell",
    "/opt/spell/inside",
    "//opt//spell/",
    "/opt",
    "/home",
]
TAKEN += [
    "/spell",
    "/spell/in",
    "/./spell",
    "//proc",
    "/home/spell/.cache",
    "/opt/./spell/reaper",
    "/opt/spell/environment",
]
OF_THE_IMAGE = {
    "/etc/apt": ("data.txt", "is not a file"),
    "/etc/passwd": ("folder", "is not a folder"),
    "/etc/passwd/below": ("folder", "is not a folder"),
    "/usr/bin/python3": ("data.txt", "it would hide the Python of the image, /usr/bin/python3"),
}
CLIMBING = ["/", "//", "/..", "/data/../proc", "../data", "data/../../x", "/data\nx", "/data\0", ""]


@pytest.mark.parametrize("path", TAKEN)
def test_nothing_is_mounted_over_what_the_container_needs(spell: Spell, source: int, path: str) -> None:
    with pytest.raises(InvalidConfig, match="the container needs"):
        spell.cast("true", mounts=(Mount(f"runs/{source}/folder", path),))


@pytest.mark.parametrize("path", OF_THE_IMAGE)
def test_a_mount_over_what_the_image_has_fails_as_a_mount(spell: Spell, source: int, path: str) -> None:
    name, why = OF_THE_IMAGE[path]
    run = spell.run("true", mounts=(Mount(f"runs/{source}/{name}", path),))
    assert (run.state, run.reason) == ("mount_failed", "mount_failed"), run.message
    assert f"{path!r} cannot be placed: " in run.message and why in run.message
    assert f"-m runs/{source}/{name}:/mnt/{name}" in run.message


@pytest.mark.parametrize("path", CLIMBING)
def test_mount_paths_do_not_climb(path: str) -> None:
    with pytest.raises(SpellError):
        Mount("runs/1/data.txt", path)


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..", "etc/passwd", "up", "up/config.toml", "fooled", "folder/passwd"]
)
def test_resources_stay_in_their_run(spell: Spell, source: int, tmp_path: Path, path: str) -> None:
    """Whether by dots or by links: listed, copied or mounted."""
    for ask in (
        lambda: spell.cast("true", mounts=(Mount(f"runs/{source}/{path}", "data"),)),
        lambda: spell.client.resources.list(f"runs/{source}/{path}"),
    ):
        with pytest.raises((InvalidConfig, NotFound)):
            ask()
    assert spell("cp", f"runs/{source}/{path}", str(tmp_path / "copy")).code != 0
    assert not (tmp_path / "copy").exists()


def test_links_that_lead_out_are_not_kept(spell: Spell, source: int) -> None:
    kept = {path.name for path in spell.home.run_dir(source).rglob("*")}
    assert kept.isdisjoint({"etc", "passwd", "up", "fooled"})
    assert {"kept", "data.txt", "y"} <= kept
    notes = {item.path: item.note for item in spell.client.runs.artifacts(str(source)) if item.note}
    assert {"etc", "folder/passwd", "up", "fooled"} <= notes.keys()


@pytest.fixture
def snared(spell: Spell, repo: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A workspace whose links lead to a folder of the host, and that folder."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine\n")
    (repo / "out").symlink_to(victim)
    (repo / "file").symlink_to(victim / "file")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "links")
    return repo, victim


@pytest.mark.parametrize("path", ["out", "out/data", "out/deep/er/data", "file"])
def test_a_mount_point_does_not_follow_links_of_the_code(
    spell: Spell, source: int, snared: tuple[Path, Path], path: str
) -> None:
    repo, victim = snared
    done = spell("run", "--mount", f"runs/{source}/folder:{path}", "cat out/*", cwd=repo)
    run = spell.client.runs.get("latest")
    assert (done.code != 0, run.state) == (True, "mount_failed")
    assert "link" in run.message and path in run.message
    assert [item.name for item in victim.iterdir()] == ["file"]


def test_the_working_directory_does_not_follow_links_of_the_code(spell: Spell, snared: tuple[Path, Path]) -> None:
    repo, victim = snared
    assert spell("run", "true", cwd=repo).code == 0
    tree = spell.client.runs.get("latest").spec["code"]["tree"]
    run = spell.run("touch mine", code=Code(tree, subdir="out/new"))
    assert run.state == "failed" and "link" in run.message
    assert [item.name for item in victim.iterdir()] == ["file"]


def test_a_link_that_appears_before_the_start_leads_nowhere(tmp_path: Path) -> None:
    """Between the check of mount points and the engine's mounting: the engine resolves links inside the container."""
    need_engine()
    home = Home(tmp_path / "home")
    home.create()
    executor, victim, data = docker_executor(home), tmp_path / "victim", tmp_path / "data"
    for folder in (victim, data):
        folder.mkdir()
    (data / "file").write_text("data\n")
    base = executor.base(RunSpec("true"), 0, tmp_path / "build.log", lambda: False)
    command = f"cat data/file; echo x > data/file; ls {victim}"
    launch = make_launch(tmp_path, command, base=base, binds=(Bind(data, "data"),))
    executor.prepare(launch)
    (launch.code / "data").rmdir()
    (launch.code / "data").symlink_to(victim)
    handle = executor.start(launch)
    executor.wait(handle)
    executor.destroy(handle)
    assert launch.log.read_text().startswith("data\n")
    assert list(victim.iterdir()) == [] and (data / "file").read_text() == "data\n"
    with pytest.raises(MountFailed, match="link"):
        executor.prepare(launch)


# -- rights ----------------------------------------------------------------------------------------------------------

PYTHON_ATTACKS = {
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)",
    "ptrace": "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0)",
    "device": "import os, stat; os.mknod('dev', 0o600 | stat.S_IFBLK, os.makedev(254, 0)); open('dev')",
    "memory of the reaper": "open('/proc/1/mem', 'rb')",
    "chroot": "import os; os.mkdir('r'); os.chroot('r')",
    "another user": "import os; os.setuid(1234)",
    "another group": "import os; os.setgroups([4321])",
    "files of the reaper": "import os; any(open(f'/proc/1/fd/{n}', 'ab') for n in os.listdir('/proc/1/fd'))",
    "names of its files": "import os; [os.readlink(f'/proc/1/fd/{n}') for n in os.listdir('/proc/1/fd')]",
    "hard link out": "import os; os.link('/opt/spell/metrics.jsonl', '/spell/metrics')",
    "link of a mount": "import os; os.link('in/file', 'linked')",
    "clock": "import time; time.clock_settime(0, 0)",
}
ATTACKS = [
    *(f"python -c {shlex.quote(code)}" for code in PYTHON_ATTACKS.values()),
    "cat /proc/1/environ",
    "ls /proc/1/root/",
    "ls /proc/1/fd/0/ /proc/1/cwd/",
    "echo -500 > /proc/1/oom_score_adj",
    "mount -t tmpfs none /mnt",
    "mount -o remount,rw /opt/spell/environment",
    "mount -o remount,bind,rw in",
    "umount in",
    "umount -l /opt/spell/runtime",
    "unshare --mount true",
    "unshare --user true",
    "unshare --net true",
    "nsenter --target 1 --mount true",
    "setpriv --reuid 1234 --clear-groups true",
    "chroot /",
    "hostname mine",
    "echo x > /proc/sys/kernel/core_pattern",
    "echo b > /proc/sysrq-trigger",
    "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
    "echo max > /sys/fs/cgroup/pids/pids.max",
    "mkdir /sys/fs/cgroup/memory/mine || mkdir /sys/fs/cgroup/mine",
    "touch /opt/spell/environment/mine",
    "rm /opt/spell/environment/bin/python",
    "chmod -R u+w /opt/spell/environment/bin",
    "touch /opt/spell/runtime/mine",
    "touch /opt/spell/pip/pip/mine",
    "echo x >> /opt/spell/uv",
    "touch /opt/spell/reaper/orchestrator/mine",
    "echo x >> /opt/spell/runtime/modules/orchestrator/runtime.py",
    "mv /opt/spell/metrics.jsonl /opt/spell/other",
    "rm /opt/spell/metrics.jsonl",
    "rm -r /opt/spell/inside",
    "echo x >> in/file",
    "echo x >> data.txt",
    ": > data.txt",
    "touch in/new",
    "rm -f in/file",
    "rm -f data.txt",
    "rmdir in || rm -rf in",
    "chmod u+w data.txt",
    "chmod u+w in",
    "mv in out",
    "mv -f own data.txt",
    "test -S /var/run/docker.sock",
    "find / -xdev -name 'docker.sock' | grep .",
    "find / -xdev '(' -name verdict.json -o -name claim.json -o -name '*.db' -o -name 'request-*' ')' | grep .",
    "ls /opt/spell/inside | grep .",
]


def test_a_run_has_no_rights(spell: Spell, source: int) -> None:
    mounts = (Mount(f"runs/{source}/folder", "in"), Mount(f"runs/{source}/data.txt", "data.txt"))
    run = spell.run(f"echo own > own\n{attempted(ATTACKS)}\ncat in/file data.txt", mounts=mounts)
    assert said(spell, run) == "done\ninside\ndata\n"
    assert run.state == "complete"
    assert (spell.home.run_dir(source) / "folder/file").read_text() == "inside\n"
    assert (spell.home.run_dir(source) / "data.txt").read_text() == "data\n"


def test_no_capabilities_even_by_setuid_programs(spell: Spell) -> None:
    command = "grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status; cp $(command -v grep) g; chmod 6755 g; "
    run = spell.run(command + "./g -E '^(CapEff|NoNewPrivs):' /proc/self/status; stat -c %a g")
    lines = [tuple(line.split(":\t")) for line in said(spell, run).splitlines()[:-1]]
    assert {value for name, value in lines if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert {("NoNewPrivs", "1"), ("Seccomp", "2")} <= set(lines)
    assert stat.S_IMODE((spell.home.run_dir(run.number) / "g").stat().st_mode) == 0o555, "no setuid program is kept"


def test_the_host_is_not_seen(spell: Spell, source: int) -> None:
    """Neither its processes nor its network, nor any file but those of the run."""
    other = spell.cast("sleep 1000", env={"TOKEN": "other-run"})
    spell.reaches(other, "running")
    command = """ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc
        grep -c docker.sock /proc/net/unix; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c other-run
        cut -d' ' -f4 /proc/self/mountinfo"""
    run = spell.run(command)
    processes, net, ipc, sockets, others, *roots = said(spell, run).splitlines()
    assert int(processes) < 10 and (sockets, others) == ("0", "0")
    assert net != os.readlink("/proc/self/ns/net") and ipc != os.readlink("/proc/self/ns/ipc")
    mine = [root for root in roots if str(spell.home.store) in root]
    seen = (f"/{run.number}/", "/environments/", "/runtime", "/caches/owner")  # of the person, for all their runs
    assert mine and all(any(word in root for word in seen) for root in mine), mine
    spell.client.runs.kill(str(other))


def test_no_network_means_none_and_its_environment_is_built(spell: Spell, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as here:
        connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
        command = f"""ls /sys/class/net; python -c 'import tiny'
            for host in 172.17.0.1 127.0.0.1 10.0.0.1; do python -c '{connect}' $host {here.getsockname()[1]} && echo out; done"""
        run = spell.run(command, network="none", pip=(str(make_wheel(tmp_path, "tiny")),))
    lines = said(spell, run).splitlines()
    assert lines[0] == "lo" and "out" not in lines and not any("ModuleNotFound" in line for line in lines)


# -- what a spec says -------------------------------------------------------------------------------------------------

NAMES = ["A=B", "A\nB", "", "1A", "A B", "SPELL_RUN", "SPELL_HOME", "Ä", "A\0", "--privileged"]
IMAGES = ["--privileged", "a -v /:/host", "$(touch x)", "a\nb", "-", "a;b", "a`id`", "../x", "a/../../containers/json"]
IMAGES += ["a//b", "a/./b", "a?x=1", "a#b", "a%2e%2e", "/abs", "x" * 600]
PACKAGES = ["-y", "--option=x", "a b", "a;id", "$(id)", "a\nb", "./x.deb", "/x.deb", "a/stable", "a=-o", "*", "a,b"]
LINES = ["--index-url=https://x", "-e .", "-r /etc/passwd", "a\n-r b", "a --install-option=x; x", "$(id)", "-"]
LABELS = ["a\nb", "a=b", "spell.home=/", "", "a\0", "$(id)", "x" * 64]


@pytest.mark.parametrize(
    "fields",
    [
        *({"env": {name: "value"}} for name in NAMES),
        {"env": {"A": "\0"}},
        *({"image": image} for image in IMAGES),
        *({"apt": (package,)} for package in PACKAGES),
        *({"pip": (line,)} for line in LINES),
        *({"labels": (label,)} for label in LABELS),
        *({"name": name} for name in ("-x", "a b", "a/b", "../a", "latest")),
        *({"network": name} for name in ("host", "container:x", "none ", "default")),
        *({"python": version} for version in ("--x", "3.11 -c", "/bin/sh", "3.11\n")),
    ],
    ids=repr,
)
def test_a_spec_is_no_way_to_say_something_to_the_engine(spell: Spell, fields: dict[str, object]) -> None:
    before = len(spell.client.runs.list(limit=10_000))
    with pytest.raises(SpellError) as refused:
        spell.cast("true", **fields)
    assert refused.value.message.strip()
    assert len(spell.client.runs.list(limit=10_000)) == before


def test_job_files_are_data(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for number, text in enumerate(
        (
            f"command: !!python/object/apply:os.system ['touch {proof}']",
            f"command: ls\nenv: !!python/object/apply:subprocess.check_output [[touch, {proof}]]",
            "command: &a [*a]",
            "command: ls\n<<: process",
            "command: ls\nenv: &e {A: *e}",
            "command: ls\nlabels: " + "[" * 5000,
        )
    ):
        job = tmp_path / f"{number}.yaml"
        job.write_text(text)
        with pytest.raises(SpellError):
            load(job)
    assert not proof.exists()
