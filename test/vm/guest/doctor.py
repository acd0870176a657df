"""memkv doctor on NVMe drives: what only real controllers tell, and a drive that does not answer any more.

doctor.py MEMKV    needs two drives and the device mapper
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import device_mapper
import nvme

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

from development_license import environment as licensed  # noqa: E402

MEMKV = sys.argv[1]
KEY = os.urandom(32).hex()
# Far more than the deadline of a drive: everything is slow in here.
STUCK_S = 60


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"doctor: {what}\n{detail}")


def doctor(folder, drives):
    """The exit code, the findings by check and subject, and the seconds it took."""
    config = pathlib.Path(folder) / "config.yaml"
    config.write_text(
        "memory: { max_size: 32 MiB }\nstorage:\n  mode: direct\n  drives:\n"
        + "".join(f"    - media: {drive}\n" for drive in drives),
        encoding="ascii",
    )
    begin = time.monotonic()
    done = subprocess.run(
        [MEMKV, "doctor", "--config", str(config), "--log-file", "none", "--json"],
        capture_output=True,
        timeout=300,
        check=False,
        env=licensed(MEMKV, keep=True, MEMKV_AUTH_KEY=KEY),
    )
    # One sentence when a check failed, which whoever reads only that can act on.
    said = done.stderr.decode()
    fits = said.startswith("memkv: ") and said.count("\n") == 1 if done.returncode else said == ""
    expect(fits, "it complains outside of its report", said)
    found = {(each["check"], each["subject"]): each for each in json.loads(done.stdout)["checks"]}
    return done.returncode, found, time.monotonic() - begin


def controllers(folder, drives):
    code, found, _ = doctor(folder, drives)
    expect(code == 0, "the drives are healthy", found)
    for drive in drives:
        for check in ("drive", "drive.discard", "drive.write_cache", "drive.read", "drive.superblock"):
            expect(found[check, drive]["state"] == "ok", f"{check} of {drive}", found)
        expect("QEMU NVMe" in found["drive", drive]["found"], "the model", found["drive", drive])
        depth = found["drive.depth", drive]
        expect("reached 64 of 64" in depth["found"], "the depth", depth)
    # As on a kernel that knows nothing of atomic writes: the controller is asked.
    zero = pathlib.Path(folder) / "zero"
    zero.write_text("0\n", encoding="ascii")
    attribute = f"/sys/block/{os.path.basename(drives[0])}/queue/atomic_write_unit_max_bytes"
    if os.path.exists(attribute):
        subprocess.run(["mount", "--bind", str(zero), attribute], check=True)
    _, found, _ = doctor(folder, drives)
    if os.path.exists(attribute):
        subprocess.run(["umount", attribute], check=True)
    atomic = found["drive.atomic_write", drives[0]]
    expect(atomic["state"] == "ok" and "(AWUPF)" in atomic["found"], "the controller's word", atomic)


def a_drive_that_hangs(folder, drives):
    size = nvme.size_of(drives[1])
    mapped = device_mapper.create("doctor", size, "linear", f"{drives[1]} 0")
    try:
        code, found, _ = doctor(folder, [drives[0], mapped])
        above = found["drive.superblock", mapped]
        expect(code == 0 and above["state"] == "ok", "through the mapper", found)
        _, found, _ = doctor(folder, drives)
        use = found["drive", drives[1]]
        expect(use["state"] == "failed" and "is part of dm-" in use["found"], "whose it is", use)
        device_mapper.suspend("doctor")
        try:
            code, found, seconds = doctor(folder, [drives[0], mapped])
        finally:
            device_mapper.resume("doctor")
        hung = found["drive.read", mapped]
        expect(hung["state"] == "failed" and "did not answer" in hung["found"], "it is named", hung)
        expect(code == 1, "that is a failure", found)
        expect(found["drive.read", drives[0]]["state"] == "ok", "the other one is read", found)
        expect(seconds < STUCK_S, f"it took {seconds:.1f} s")
        print(f"doctor: with a drive that hangs {seconds:.1f} s")
    finally:
        device_mapper.remove("doctor")


def main():
    drives = nvme.drives()
    expect(len(drives) == 2, f"two drives, not {drives}")
    done = subprocess.run([MEMKV, "setup", "--drives", *drives], capture_output=True, check=False)
    expect(done.returncode == 0, "setup failed", done.stderr.decode())
    with tempfile.TemporaryDirectory() as folder:
        controllers(folder, drives)
        a_drive_that_hangs(folder, drives)
    print("doctor: passed")


if __name__ == "__main__":
    main()
