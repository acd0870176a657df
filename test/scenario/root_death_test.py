"""When the root supervisor dies, the process ends with 1, and a restart finds every acknowledged block.

root_death_test.py MEMKV MORTAL_SERVER
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from development_license import environment as licensed  # noqa: E402

MEMKV, MORTAL = sys.argv[1:3]
KEY = os.urandom(32).hex()
WRITERS = 3
SECONDS = 3


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"root_death_test: {what} failed\n{detail}")


class Server:
    def __init__(self, drives):
        self.process = subprocess.Popen(
            [MORTAL, *drives],
            env={**os.environ, "MEMKV_AUTH_KEY": KEY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        expect(line.strip().isdigit(), "start", line)
        self.address = f"127.0.0.1:{line.strip()}"

    def kill(self, actor):
        self.process.stdin.write(actor + "\n")
        self.process.stdin.flush()

    def client(self, *words, stdin=b""):
        return subprocess.run(
            [MEMKV, "client", *words],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env=licensed(MEMKV, keep=True, MEMKV_AUTH_KEY=KEY, MEMKV_SERVERS=self.address),
        )


def value_of(key):
    return random.Random(key).randbytes(50_000)


def write(server, name, acknowledged, over):
    """Puts blocks one by one and notes those that were acknowledged."""
    for number in range(100_000):
        if over.is_set():
            return
        key = f"{name}-{number}"
        if server.client("put", key, "--deadline-ms", "2000", stdin=value_of(key)).returncode == 0:
            acknowledged.append(key)


def main():
    with tempfile.TemporaryDirectory() as folder:
        drives = [os.path.join(folder, f"drive{index}.dat") for index in range(2)]
        server = Server(drives)
        acknowledged, over = [], threading.Event()
        writers = [
            threading.Thread(target=write, args=(server, f"writer{index}", acknowledged, over))
            for index in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        time.sleep(SECONDS)
        server.kill("server")
        code = server.process.wait(timeout=60)
        over.set()
        for writer in writers:
            writer.join()
        expect(code == 1, "exit code 1 after the root's death", f"exit code {code}")
        expect(len(acknowledged) > 20, "puts before the root's death", f"{len(acknowledged)} acknowledged")

        server = Server(drives)
        for key in acknowledged:
            found = server.client("get", key)
            expect(found.returncode == 0 and found.stdout == value_of(key), f"get of {key}", found.stderr)
        server.process.terminate()
        expect(server.process.wait(timeout=60) == 0, "stop in good order")
        print(f"root_death_test: passed, {len(acknowledged)} acknowledged blocks found again")


if __name__ == "__main__":
    main()
