"""A writer of event files in some lines, as text for scripts that run in runs, which have no TensorBoard."""

from __future__ import annotations

import textwrap

WRITER = """
import os, struct, time

def crc(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

def part(number, data):
    size, left = b"", len(data)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + data

def frame(event):
    head = struct.pack("<Q", len(event))
    return head + struct.pack("<I", crc(head)) + event + struct.pack("<I", crc(event))

def event(step, *fields):
    return frame(b"\\x09" + struct.pack("<d", time.time()) + bytes([16, step]) + b"".join(fields))

def scalar(tag, value, step):
    return event(step, part(5, part(1, part(1, tag.encode()) + b"\\x15" + struct.pack("<f", value))))

def picture(tag, data, step):
    return event(step, part(5, part(1, part(1, tag.encode()) + part(4, part(4, data)))))

def histogram(tag, step):
    return event(step, part(5, part(1, part(1, tag.encode()) + part(5, b""))))

def hparams(name, value):
    pair = part(1, name.encode()) + part(2, b"\\x11" + struct.pack("<d", value))
    plugin = part(1, part(1, b"hparams") + part(2, part(3, part(1, pair))))
    return event(0, part(5, part(1, part(1, b"_hparams_/session_start_info") + part(9, plugin))))

def restart(step):
    return event(step, part(7, b"\\x08\\x01"))

def write(folder, *frames, name="1.host"):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/events.out.tfevents.{name}", "ab") as file:
        file.write(b"".join(frames))
"""


def script(lines: str) -> str:
    """A command that runs these lines of Python, which may use the functions above."""
    return f"python - <<'END'\n{WRITER}\n{textwrap.dedent(lines)}\nEND"
