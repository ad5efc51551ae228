"""The part of SummaryWriter that `train.py` uses, in Python only."""

import os
import struct
import time


class SummaryWriter:
    def __init__(self, log_dir):
        os.makedirs(log_dir, exist_ok=True)
        self._file = open(f"{log_dir}/events.out.tfevents.{time.time():.0f}.{os.getpid()}", "wb")  # noqa: SIM115 - __exit__ closes it

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def add_scalar(self, tag, value, step):
        summary = field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        event = b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint(step) + field(5, summary)
        length = struct.pack("<Q", len(event))
        self._file.write(length + checksum(length) + event + checksum(event))
        self._file.flush()


def varint(number):
    low = bytes([number & 127 | (128 if number > 127 else 0)])
    return low + varint(number >> 7) if number > 127 else low


def field(number, data):
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def checksum(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)
