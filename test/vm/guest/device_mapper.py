"""Devices of the kernel's device mapper, through its ioctls: dmsetup would wait for udev, which is not there.

Threading: any. Errors: OSError of the ioctl.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

CLOSE_S = 20.0

_CREATE, _REMOVE, _SUSPEND, _LOAD, _MESSAGE = 3, 4, 6, 9, 14
_FLAG_SUSPEND = 1 << 1
_FLAG_SKIP_LOCKFS = 1 << 10
_HEADER = struct.Struct("<3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("<QQiI16s")
assert _HEADER.size == 312


def _control(command: int, name: str, flags: int = 0, data: bytes = b"", targets: int = 0) -> int:
    """One ioctl; returns the device's number."""
    size = _HEADER.size + len(data)
    header = _HEADER.pack(4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(header + data + bytes(max(0, 1024 - size)))
    struct.pack_into("<I", buffer, 12, len(buffer))
    descriptor = os.open("/dev/mapper/control", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | command, buffer)
    finally:
        os.close(descriptor)
    return _HEADER.unpack_from(buffer)[10]


def _load(name: str, length: int, target: str, parameters: str) -> None:
    text = parameters.encode() + b"\0"
    text += bytes(-len(text) % 8)
    specification = _TARGET.pack(0, length // 512, 0, _TARGET.size + len(text), target.encode())
    _control(_LOAD, name, data=specification + text, targets=1)
    _control(_SUSPEND, name)  # without the flag: go on, with the new table


def create(name: str, length: int, target: str, parameters: str) -> str:
    """Makes a device of so many bytes with one target and returns its path."""
    number = _control(_CREATE, name)
    _load(name, length, target, parameters)
    return f"/dev/dm-{os.minor(number)}"


def exchange(name: str, length: int, target: str, parameters: str) -> None:
    """Gives the device another target; what is under way ends on the old one."""
    _load(name, length, target, parameters)


def remove(name: str) -> None:
    """Removes a device that nobody has open, or has for long: the kernel closes what an io_uring holds some
    time after the death of its process."""
    deadline = time.monotonic() + CLOSE_S
    while True:
        try:
            _control(_REMOVE, name)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def suspend(name: str) -> None:
    """What is under way ends, what comes waits. File systems on the device are not asked to settle first."""
    _control(_SUSPEND, name, _FLAG_SUSPEND | _FLAG_SKIP_LOCKFS)


def resume(name: str) -> None:
    """The opposite of suspend."""
    _control(_SUSPEND, name)


def message(name: str, text: str) -> None:
    """A message to the device's only target."""
    _control(_MESSAGE, name, data=struct.pack("<Q", 0) + text.encode() + b"\0")
