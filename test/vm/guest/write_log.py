"""What the target log-writes of the kernel's device mapper recorded, and the states in which a power cut may
leave the drive.

The kernel logs a write when a flush that began after its completion has ended, a write with FUA when it has
ended itself, and a mark at once. So the log's order is that in which things became durable, and a mark stands
behind all that was durable before it.

`Replay` adds the volatile cache: the writes between the last flush and the place of the cut may be there, be
lost, or be there in part, sector by sector, each for itself. A discarded range reads as zeros or as before.

Limits: a write that was overwritten by one with FUA before any flush is logged behind it; then the replay has
the older bytes. Threading: one thread. Errors: ValueError for a log that is not what it should be.
"""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass

import nvme

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class Entry:
    """One entry; `sector` and `count` in sectors of the log, `offset` of the data in bytes."""

    flags: int
    sector: int
    count: int
    offset: int
    mark: str = ""


class Log:
    """The whole log, read from its device after the target was removed."""

    def __init__(self, path: str) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDONLY)
        try:
            magic, version, count, self.sector_bytes = _SUPER.unpack(os.pread(descriptor, _SUPER.size, 0))
            if magic != MAGIC or version != 1:
                raise ValueError(f"{path} is no log of writes")
            self.entries: list[Entry] = []
            offset = self.sector_bytes
            for _ in range(count):
                block = os.pread(descriptor, self.sector_bytes, offset)
                sector, sectors, flags, length = _ENTRY.unpack_from(block)
                offset += self.sector_bytes
                mark = block[_ENTRY.size : _ENTRY.size + length].rstrip(b"\0") if flags & MARK else b""
                self.entries.append(Entry(flags, sector, sectors, offset, mark.decode()))
                if not flags & DISCARD:
                    offset += sectors * self.sector_bytes
        finally:
            os.close(descriptor)

    def places(self, begins: str) -> list[int]:
        """Indices of the marks that begin so."""
        return [at for at, entry in enumerate(self.entries) if entry.mark.startswith(begins)]


class Replay:
    """The drive while the log is gone through, and what a cut leaves of it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.position = 0
        self._durable: dict[int, int] = {}
        self._cached: list[Entry] = []

    def advance(self, position: int) -> None:
        """Goes on to just before the entry with this index."""
        if position < self.position:
            raise ValueError("a replay goes forward only")
        for entry in self._log.entries[self.position : position]:
            if entry.flags & MARK:
                continue
            if entry.flags & FLUSH:
                for cached in self._cached:
                    self._apply(self._durable, cached, range(cached.count))
                self._cached.clear()
            if entry.flags & FUA:
                self._apply(self._durable, entry, range(entry.count))
            elif entry.count:
                self._cached.append(entry)
        self.position = position

    def cached(self) -> int:
        """How many writes a cut here may lose."""
        return len(self._cached)

    def cut(self, chance: random.Random) -> dict[int, int]:
        """A state that a cut here may leave: the place of each sector's bytes in the log."""
        state = dict(self._durable)
        kept = chance.choice((0.0, 0.5, 0.9, 1.0))
        for entry in self._cached:
            if chance.random() >= kept:
                continue
            sectors = list(range(entry.count))
            if chance.random() < 0.3:
                sectors = [sector for sector in sectors if chance.random() < 0.5]
            if entry.flags & DISCARD and chance.random() < 0.5:
                continue
            self._apply(state, entry, sectors)
        return state

    def _apply(self, state: dict[int, int], entry: Entry, sectors) -> None:
        if entry.flags & DISCARD:
            for sector in sectors:
                state.pop(entry.sector + sector, None)
        else:
            size = self._log.sector_bytes
            state.update((entry.sector + sector, entry.offset + sector * size) for sector in sectors)


def write_state(log: Log, state: dict[int, int], path: str) -> int:
    """Makes an emptied drive have that state; returns the bytes written."""
    size = log.sector_bytes
    nvme.discard(path, 0, nvme.size_of(path))
    source = os.open(log.path, os.O_RDONLY)
    target = os.open(path, os.O_WRONLY)
    try:
        written = 0
        run: list[int] = []
        # One read and one write for what lies together on both sides.
        for sector in [*sorted(state), None]:
            together = (
                run
                and sector == run[-1] + 1
                and state[sector] == state[run[-1]] + size
                and len(run) * size < COPY_BYTES
            )
            if run and not together:
                data = os.pread(source, len(run) * size, state[run[0]])
                if os.pwrite(target, data, run[0] * size) != len(run) * size:
                    raise OSError(f"{path} took a part of the write only")
                written += len(data)
                run = []
            run.append(sector)
        os.fsync(target)
        return written
    finally:
        os.close(source)
        os.close(target)
