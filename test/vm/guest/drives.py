"""What the other scripts rely on: the drives are those that were asked for, take O_DIRECT, keep what was
written, and a discard gives space back on the host.

drives.py DRIVES SECTOR
"""

import os
import sys

import nvme

MIB = 1 << 20


def expect(condition, what):
    if not condition:
        sys.exit(f"drives: {what} failed")


def check(count, sector):
    drives = nvme.drives()
    expect(len(drives) == count, f"finding {count} drives, there are {drives}")
    for number, path in enumerate(drives):
        expect(nvme.sector_of(path) == sector, f"{path}: sectors of {sector} bytes")
        data = os.urandom(8 * MIB)
        empty = nvme.taken_on_host(number)
        for begin in range(0, len(data), MIB):
            nvme.write_direct(path, 64 * MIB + begin, data[begin : begin + MIB])
        full = nvme.taken_on_host(number)
        expect(full - empty >= 8 * MIB, f"{path}: writing into the host's file, {empty} to {full} bytes")
        read = b"".join(nvme.read_direct(path, 64 * MIB + begin, MIB) for begin in range(0, len(data), MIB))
        expect(read == data, f"{path}: reading what was written")
        nvme.discard(path, 64 * MIB, 4 * MIB)
        half = nvme.taken_on_host(number)
        expect(full - half >= 4 * MIB, f"{path}: giving space back on the host, {full} to {half} bytes")
        expect(nvme.read_direct(path, 68 * MIB, MIB) == data[4 * MIB : 5 * MIB], f"{path}: keeping the rest")
        print(f"{path}: {sector} bytes a sector; on the host {empty}, written {full}, discarded {half} bytes")
        nvme.discard(path, 0, nvme.size_of(path))


def main():
    check(int(sys.argv[1]), int(sys.argv[2]))
    print("drives: passed")


if __name__ == "__main__":
    main()
