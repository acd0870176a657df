"""The guest's NVMe drives, and what the host says of the files behind them.

Threading: any. Errors: OSError of the operation.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pathlib
import struct

BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268
BLKDISCARD = 0x1277
SERIAL = "memkv-vm-"
SHARE = pathlib.Path(os.environ.get("MEMKV_VM_SHARE", "/run/memkv-vm"))


def drives() -> list[str]:
    """Paths of the drives, in the order in which the host made them: the kernel finds them in any order."""
    found = {}
    for entry in pathlib.Path("/sys/block").glob("nvme*n*"):
        serial = (entry / "device" / "serial").read_text(encoding="ascii").strip()
        if serial.startswith(SERIAL):
            found[int(serial.removeprefix(SERIAL))] = f"/dev/{entry.name}"
    return [found[number] for number in sorted(found)]


def taken_on_host(number: int) -> int:
    """Bytes that the host's file system has given to the file behind the drive."""
    return (SHARE / "drives" / str(number)).stat().st_blocks * 512


def size_of(path: str) -> int:
    """Bytes of a block device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return struct.unpack("Q", fcntl.ioctl(descriptor, BLKGETSIZE64, bytes(8)))[0]
    finally:
        os.close(descriptor)


def sector_of(path: str) -> int:
    """Bytes of its logical block."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, BLKSSZGET, bytes(4)))[0]
    finally:
        os.close(descriptor)


def discard(path: str, offset: int, length: int) -> None:
    """BLKDISCARD."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        fcntl.ioctl(descriptor, BLKDISCARD, struct.pack("QQ", offset, length))
    finally:
        os.close(descriptor)


def write_direct(path: str, offset: int, data: bytes) -> None:
    """O_DIRECT, from memory that is aligned to a page; flushed."""
    with mmap.mmap(-1, len(data)) as buffer:
        buffer[:] = data
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            if os.pwrite(descriptor, buffer, offset) != len(data):
                raise OSError("the drive took a part of the write only")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def read_direct(path: str, offset: int, length: int) -> bytes:
    """O_DIRECT, into memory that is aligned to a page."""
    with mmap.mmap(-1, length) as buffer:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            if os.preadv(descriptor, [buffer], offset) != length:
                raise OSError("the drive gave a part of the bytes only")
        finally:
            os.close(descriptor)
        return buffer[:]
