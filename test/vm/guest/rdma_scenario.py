"""Blocks over real RDMA (soft-RoCE), through the programs as an operator uses them.

rdma_scenario.py MEMKV MEMKV-BENCH MODE

MODE is memory, file or direct. Values go in and out by RDMA, every byte compared, and are read over TCP as
well; what moved by RDMA is taken from the server's own counters, so that nothing passes that went over TCP in
silence. After every client, however it ended, the server has no session left. MODE memory also takes the
device away under load, and gives it back.

MEMKV_TEST_RDMA_KILLS: clients that are killed at a random moment (50, of MODE memory; the others a tenth).
MEMKV_TEST_SEED repeats the moments.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.request

import nvme
import rdma_link
import server as servers

KILLS = int(os.environ.get("MEMKV_TEST_RDMA_KILLS", "50"))
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
WAIT_S = 90.0  # for what must come about by itself; seconds on this emulated machine
SIZES = (1, 4096, 65_536, 1 << 20, (9 << 20) // 2)  # the last one is more than an extent
ITEMS = 24


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"rdma_scenario: {what}\n{detail}")


def wait_until(what, condition, limit_s=WAIT_S):
    """Returns how long it took."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > limit_s:
            raise AssertionError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - begin


class Scene:
    """A server with RDMA on one mode of storage, and clients of it."""

    def __init__(self, memkv: str, bench: str, mode: str) -> None:
        self.memkv, self.bench, self.mode = memkv, bench, mode
        self.chance = random.Random(SEED)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rdma-scenario-", dir="/run"))
        self.server = servers.Server(memkv, self._configuration(), self.directory)

    def _configuration(self) -> str:
        if self.mode == "direct":
            drives = nvme.drives()
            subprocess.run([self.memkv, "setup", "--drives", *drives], check=True, capture_output=True)
            listed = "".join(f"    - {{ media: {drive} }}\n" for drive in drives)
        elif self.mode == "file":
            listed = f"    - {{ media: {self.directory / 'drive'}, max_size: 512 MiB }}\n"
        else:
            listed = "    - { media: memory, max_size: 512 MiB }\n"
        return (
            f"network: {{ address: '0.0.0.0:{servers.PORT}' }}\n"
            f"rdma: {{ device: {rdma_link.NAME}, mtu: 4096 }}\n"
            "memory: { max_size: 128 MiB, block_size: 2 MiB }\n"
            f"storage:\n  mode: {self.mode}\n  drives:\n{listed}"
        )

    # --- the server's word ---

    def ask(self, path: str) -> dict:
        """An answer of the administration endpoint, whatever its status."""
        request = urllib.request.Request(f"http://127.0.0.1:{servers.PORT + 1}{path}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as problem:
            return json.load(problem)

    def active(self) -> bool:
        return bool(self.ask("/v1/health").get("rdma_active"))

    def sessions(self) -> int:
        return self.ask("/v1/status").get("rdma", {}).get("sessions", -1)

    def moved_bytes(self) -> int:
        """By RDMA, both ways, since the server's pool was opened."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{servers.PORT + 1}/v1/metrics", timeout=20
        ) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith("memkv_rdma_transferred_bytes_total")
        )

    def settled_bytes(self) -> int:
        """The same once it changes no more: a pool that is short of its processor is counted late."""
        last = self.moved_bytes()
        for _ in range(60):
            time.sleep(0.5)
            now = self.moved_bytes()
            if now == last:
                break
            last = now
        return last

    def no_session_left(self, after: str) -> float:
        try:
            return wait_until(f"sessions after {after}", lambda: self.sessions() == 0)
        except AssertionError as problem:
            self.server.fail(f"rdma_scenario: {problem}; there are {self.sessions()}")
            raise

    # --- clients ---

    def command(self, transport: str, operation: str, *more: str) -> list[str]:
        seed = [] if "--seed" in more else ["--seed", "7"]
        return [
            self.bench, "run", "--servers", f"127.0.0.1:{servers.PORT}", "--transport", transport,
            "--op", operation, "--verify", *seed, *more,
        ]  # fmt: skip

    @staticmethod
    def environment() -> dict[str, str]:
        from development_license import environment as licensed

        return licensed(
            sys.argv[1], keep=True, MEMKV_AUTH_KEY=servers.KEY_TEXT, MEMKV_RDMA_DEVICES=rdma_link.NAME,
            MEMKV_RDMA_MESSAGES="true",
        )  # fmt: skip

    def run(self, transport: str, operation: str, *more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(transport, operation, *more), env=self.environment(), capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    def begin(self, transport: str, operation: str, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(transport, operation, *more), env=self.environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def must(self, transport: str, operation: str, *more: str) -> None:
        done = self.run(transport, operation, *more)
        if done.returncode != 0:
            self.server.fail(
                f"rdma_scenario: {operation} over {transport} failed ({' '.join(more)}):\n"
                f"{done.stdout}{done.stderr}"
            )

    # --- what is shown ---

    def every_size_by_rdma(self) -> None:
        for size in SIZES:
            items = ITEMS if size < 1 << 20 else 8
            shape = ["--block-size", str(size), "--keys", str(items), "--ops", str(items * 2)]
            before = self.moved_bytes()
            self.must("rdma", "put", *shape, "--batch", "4")
            put = self.settled_bytes()
            expect(put - before >= items * 2 * size, f"puts of {size} bytes did not move by RDMA",
                   f"{put - before} bytes moved")  # fmt: skip
            self.must("rdma", "get", *shape, "--batch", "4", "--no-preload")
            got = self.settled_bytes()
            expect(got - put >= items * 2 * size, f"gets of {size} bytes did not move by RDMA",
                   f"{got - put} bytes moved")  # fmt: skip
            self.must("tcp", "get", *shape, "--no-preload")
            expect(self.settled_bytes() == got, "gets over TCP moved bytes by RDMA")
        # What came in over TCP goes out by RDMA.
        shape = ["--block-size", "262144", "--keys", "16", "--ops", "32", "--seed", "9"]
        self.must("tcp", "put", *shape)
        self.must("rdma", "get", *shape, "--no-preload")
        self.no_session_left("every size")

    def small_requests_by_messages(self) -> None:
        report = self.directory / "small.json"
        shape = ["--block-size", "4096", "--keys", "16", "--ops", "64", "--batch", "1", "--depth", "1"]
        for transport, operation in (("rdma", "exists"), ("auto", "exists"), ("rdma", "put"), ("rdma", "get"),
                                     ("auto", "get"), ("rdma", "mixed")):  # fmt: skip
            self.must(transport, operation, *shape, "--json", str(report))
            row = json.loads(report.read_text())["runs"][0]
            expect(row["messages"] >= 64, f"{operation} over {transport} was not asked for by messages",
                   str(row))  # fmt: skip
        # Many at a time, by several threads on connections of their own.
        self.must("rdma", "mixed", "--block-size", "4096", "--keys", "64", "--ops", "2000", "--batch", "4",
                  "--depth", "8", "--threads", "3", "--connections", "3")  # fmt: skip
        self.no_session_left("small requests")

    def killed_clients(self, times: int) -> None:
        waits = []
        for number in range(1, times + 1):
            size = self.chance.choice(["4096", "262144", "4194304"])
            client = self.begin("rdma", "mixed", "--block-size", size, "--keys", "16", "--duration", "60",
                                "--batch", self.chance.choice(["1", "8"]))  # fmt: skip
            time.sleep(self.chance.uniform(0.0, 1.5))
            client.kill()
            client.communicate()
            waits.append(self.no_session_left("a killed client"))
            if number % 50 == 0:
                print(f"rdma_scenario: {number} of {times} clients killed", flush=True)
        if times:
            waits.sort()
            print(f"rdma_scenario: {times} clients killed, sessions back to 0 in "
                  f"{waits[len(waits) // 2]:.2f} s (median), {waits[-1]:.2f} s at most",
                  flush=True)  # fmt: skip
        self.must("rdma", "get", "--block-size", "65536", "--keys", "16", "--ops", "32")

    def device_taken_away(self) -> None:
        shape = ["--block-size", "65536", "--keys", "64"]
        easy = self.begin("auto", "mixed", *shape, "--duration", "25", "--seed", "21")
        strict = self.begin("rdma", "mixed", *shape, "--duration", "25", "--seed", "22")
        wait_until("two clients with sessions", lambda: self.sessions() >= 2)
        time.sleep(1.0)
        rdma_link.delete()
        said, _ = strict.communicate(timeout=120)
        expect(strict.returncode == 1, "a client that insists on RDMA went on without", said)
        expect("RDMA" in said or "rdma" in said, "a client without its RDMA does not say so", said)
        wait_until("a server without RDMA", lambda: not self.active())
        self.no_session_left("the device was taken away")
        said, _ = easy.communicate(timeout=120)
        expect(easy.returncode == 0, "a client that may use TCP did not go on", said)
        expect("TCP" in said, "a client that went over to TCP does not say so", said)
        self.must("tcp", "put", *shape, "--ops", "64")
        rdma_link.add()
        took = wait_until("RDMA again", self.active)
        print(f"rdma_scenario: RDMA is back {took:.1f} s after the device", flush=True)
        before = self.moved_bytes()
        self.must("rdma", "get", *shape, "--ops", "64")
        expect(self.moved_bytes() > before, "after the device came back nothing moves by RDMA")
        self.no_session_left("the device came back")

    def cable_pulled(self) -> None:
        client = self.begin("auto", "mixed", "--block-size", "65536", "--keys", "64", "--duration", "10")
        wait_until("a client with a session", lambda: self.sessions() >= 1)
        rdma_link.take_port_down()
        said, _ = client.communicate(timeout=180)
        expect(client.returncode == 0, "a client that may use TCP did not go on without the port", said)
        rdma_link.bring_port_up()
        wait_until("RDMA again after the port came up", self.active)
        self.no_session_left("the port was down")
        self.must("rdma", "get", "--block-size", "65536", "--keys", "16", "--ops", "32")

    def whole(self) -> None:
        print(f"rdma_scenario: {self.mode}, MEMKV_TEST_SEED={SEED}", flush=True)
        self.server.start()
        wait_until("RDMA", self.active)
        self.every_size_by_rdma()
        print("rdma_scenario: every size by RDMA, every byte compared", flush=True)
        self.small_requests_by_messages()
        print("rdma_scenario: small requests by messages", flush=True)
        self.killed_clients(KILLS if self.mode == "memory" else KILLS // 10)
        if self.mode == "memory":
            self.device_taken_away()
            self.cable_pulled()
        self.server.stop()
        self.server.start()
        wait_until("RDMA after a restart", self.active)
        if self.mode != "memory":
            self.must("rdma", "get", "--block-size", "4096", "--keys", str(ITEMS), "--ops", "32",
                      "--no-preload")  # fmt: skip
        self.server.stop()


def main():
    rdma_link.make()
    Scene(*sys.argv[1:4]).whole()
    print(f"rdma_scenario: {sys.argv[3]} passed")


if __name__ == "__main__":
    main()
