"""Chaos on three drives: raw ones on loop devices where they can be had, else files.

chaos_test.py CHAOS MEMKV    MEMKV_CHAOS_SECONDS for longer (120), MEMKV_TEST_SEED repeats a run's choices,
                             MEMKV_CHAOS_DRIVES=file takes files also where raw drives can be had
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "scenario"), str(HERE.parent / "python")]

from development_license import environment as licensed  # noqa: E402
from loop_drives import Loops  # noqa: E402

CHAOS, MEMKV = sys.argv[1:3]
SECONDS = int(os.environ.get("MEMKV_CHAOS_SECONDS", 120))
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
DRIVES = 3
IMAGE_BYTES = 640 << 20


def raw_drives(loops):
    """Devices, or none where they cannot be had."""
    if os.geteuid() != 0 or shutil.which("losetup") is None or os.environ.get("MEMKV_CHAOS_DRIVES") == "file":
        return []
    try:
        return [loops.make(4096) for _ in range(DRIVES)]
    except OSError as problem:
        print(f"chaos: no loop devices ({problem}): files instead")
        loops.free_all()
        return []


def main():
    print(f"chaos: MEMKV_TEST_SEED={SEED}", flush=True)
    with tempfile.TemporaryDirectory(prefix="memkv-chaos-") as folder:
        loops = Loops(folder, IMAGE_BYTES)
        try:
            devices = raw_drives(loops)
            words = [CHAOS, MEMKV, str(SECONDS), str(SEED), *devices]
            code = subprocess.run(words, check=False, timeout=SECONDS + 400, env=licensed(MEMKV)).returncode
        finally:
            loops.free_all()
    sys.exit(code)


if __name__ == "__main__":
    main()
