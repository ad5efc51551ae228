"""Opens connections to the ports of a container's programs, and passes them to spelld: only inside a container do its
loopback, and the names of its processes, mean what the run means by them.

spelld listens on a Unix socket in a folder that the container sees, and starts this program there. Each request of spelld is
one message, and so is each answer:

    list        {"ports": [[PORT, ADDRESS, PROGRAM], …]}
    PORT        {"connected": true} with the connection as a file descriptor (SCM_RIGHTS); {"connected": false} where
                no process of the run listens on that port, with "error" where it does not answer

It ends when spelld closes the socket, or has asked nothing for a while.
"""

import array
import glob
import json
import os
import re
import socket

_IDLE_S = 120.0
_CONNECT_LIMIT_S = 5.0
_LISTENS = "0A"  # TCP_LISTEN of the kernel's tcp_states.h, in /proc/net/tcp
_MESSAGE_BYTES = 256
_MOST_PORTS = 500  # an answer is one message


def main(path: str) -> None:
    """Answer the requests of the spelld that listens at this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(path)
        line.settimeout(_IDLE_S)
        while True:
            try:
                request = line.recv(_MESSAGE_BYTES)
            except socket.timeout:  # noqa: UP041 - another error before Python 3.10
                return
            if not request:
                return
            if request == b"list":
                _say(line, {"ports": listening()[:_MOST_PORTS]})
            else:
                _connect(line, int(request))


def _connect(line: socket.socket, port: int) -> None:
    address = next((found for number, found, _ in listening() if number == port), "")
    if not address:
        _say(line, {"connected": False})
        return
    try:
        connection = socket.create_connection((reachable(address), port), _CONNECT_LIMIT_S)
    except OSError as error:
        _say(line, {"connected": False, "error": error.strerror or str(error)})
        return
    with connection:
        connection.settimeout(None)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))]
        line.sendmsg([json.dumps({"connected": True}).encode()], passed)


def _say(line: socket.socket, words: "dict[str, object]") -> None:
    line.send(json.dumps(words).encode())


def reachable(address: str) -> str:
    """Return the address at which a program that listens at this one is reached."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  it is looked for, not used


def listening() -> "list[tuple[int, str, str]]":
    """Return (port, address, program) of the TCP ports that visible processes listen on, in order."""
    owners = _owners()
    found = []
    for name, family in ("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6):
        try:
            with open(name) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:  # a kernel without IPv6
            continue
        for row in rows:
            if row[3] == _LISTENS and row[9] in owners:
                address, _, port = row[1].partition(":")
                found.append((int(port, 16), _address(address, family), owners[row[9]]))
    return sorted(found)


def _address(text: str, family: int) -> str:
    """Return the address that the kernel writes as hexadecimal words in the machine's own order of bytes."""
    words = array.array("I", [int(text[at : at + 8], 16) for at in range(0, len(text), 8)])
    return socket.inet_ntop(family, words.tobytes())


def _owners() -> "dict[str, str]":
    """Return the name of the program that holds a socket open, by the socket's inode."""
    found = {}  # type: dict[str, str]
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(folder + "/comm") as file:
                program = file.read().strip()
            names = [os.readlink(name) for name in glob.glob(folder + "/fd/*")]
        except OSError:  # it has ended, or is not ours to look at
            continue
        for name in names:
            inode = re.match(r"socket:\[(\d+)\]", name)
            if inode:
                found.setdefault(inode.group(1), program)
    return found
