"""Throughput over soft-RoCE as a ratio to perftest's, in the same boot, alternating.

rdma_ratio.py MEMKV MEMKV-BENCH [ROUNDS]

rdma_ratio.py MEMKV MEMKV-BENCH ROUNDS small

Memory mode. Puts beside ib_read_bw (the server reads the client's memory) and gets beside ib_write_bw, of 1
and 4 MiB, unless `small` is said; then existence queries and values of 4 KiB, one at a time, asked for over
TCP and by messages of a queue pair, beside ib_send_lat. Medians and spread; nothing is asserted. See
docs/performance.md for what came of it.
"""

from __future__ import annotations

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import rdma_link
from rdma_scenario import Scene, wait_until

PERFTEST_PORT = "18515"
SECONDS = "6"


def perftest(program: str, *words: str) -> float:
    """Seconds that the client's side took."""
    command = [program, "-d", rdma_link.NAME, "-x", "1", "-p", PERFTEST_PORT, "-F", "-m", "4096", *words]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        begin = time.monotonic()
        subprocess.run([*command, rdma_link.ADDRESS], capture_output=True, timeout=120, check=True)
        return time.monotonic() - begin
    finally:
        server.kill()
        server.wait()


def patient(program: str, *words: str) -> float:
    """On a busy machine its server may not listen yet when the client comes."""
    for _ in range(4):
        try:
            return perftest(program, *words)
        except subprocess.CalledProcessError:
            time.sleep(2.0)
    return perftest(program, *words)


def rate(program: str, size: int, few: int, many: int) -> float:
    """Messages a second. From two runs by the wall clock: what perftest prints rests on a frequency that an
    emulated processor does not have, and setting up takes a second."""
    words = ["-s", str(size), "-n"]
    short = patient(program, *words, str(few))
    return (many - few) / max(patient(program, *words, str(many)) - short, 0.001)


def bandwidth(program: str, size: int) -> float:
    """MiB a second."""
    return rate(program, size, (8 << 20) // size + 4, (200 << 20) // size) * size / (1 << 20)


def sleeps(scene: Scene) -> int:
    """How often threads of the server and ended clients gave the processor up."""
    tasks = pathlib.Path(f"/proc/{scene.server.pid}/task").glob("*/status")
    lines = [line for task in tasks for line in task.read_text().splitlines()]
    mine = sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return mine + resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw


def ours(scene: Scene, operation: str, size: int, alone: bool = False, messages: bool = True) -> dict:
    """One row of memkv-bench; `alone`: one item at a time."""
    report = scene.directory / "row.json"
    calls = ["--batch", "1", "--depth", "1"] if alone else ["--batch", "4", "--depth", "4"]
    environment = dict(scene.environment(), MEMKV_RDMA_MESSAGES="true" if messages else "false")
    shape = ["--block-size", str(size), "--keys", str(max(8, (64 << 20) // size)), "--threads", "1",
             "--connections", "1", *calls]  # fmt: skip
    command = [word for word in scene.command("rdma", operation, *shape) if word != "--verify"]
    before = sleeps(scene)
    subprocess.run([*command, "--duration", SECONDS, "--json", str(report)], env=environment,
                   check=True, timeout=300, stdout=subprocess.DEVNULL)  # fmt: skip
    run = json.loads(report.read_text())["runs"][0]
    after = sleeps(scene)
    begin = time.monotonic()
    time.sleep(1.0)
    # What its idle threads do at any time is not the requests'.
    idle = (sleeps(scene) - after) / (time.monotonic() - begin)
    run["sleeps"] = (after - before - idle * run["seconds"]) / run["ops"]
    if alone and (run["messages"] != 0) != messages:
        raise RuntimeError(f"the requests took another way than was asked for: {run}")
    return run


def line(what: str, peers: list[float], mine: list[float], unit: str) -> None:
    ratios = [b / a for a, b in zip(peers, mine)]
    print(f"{what:38} peer {statistics.median(peers):8.1f} {unit} ({min(peers):.1f}-{max(peers):.1f}), memkv "
          f"{statistics.median(mine):8.1f} ({min(mine):.1f}-{max(mine):.1f}), ratio "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)  # fmt: skip


def main():
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rdma_link.make()
    scene = Scene(sys.argv[1], sys.argv[2], "memory")
    scene.server.start()
    wait_until("RDMA", scene.active)
    for size in () if sys.argv[4:] == ["small"] else (1 << 20, 4 << 20):
        for operation, program in (("put", "ib_read_bw"), ("get", "ib_write_bw")):
            peers, mine = [], []
            for _ in range(rounds):
                peers.append(bandwidth(program, size))
                mine.append(ours(scene, operation, size)["gib_per_s"] * 1024)
            line(f"{operation} of {size >> 20} MiB beside {program}", peers, mine, "MiB/s")
    ways = [(what, messages) for what in ("exists", "get", "put") for messages in (False, True)]
    peers, mine, slept = [], {way: [] for way in ways}, {way: [] for way in ways}
    for _ in range(rounds):
        # ib_send_lat goes there and back.
        peers.append(rate("ib_send_lat", 256, 100, 4000))
        for what, messages in ways:
            run = ours(scene, what, 4096, True, messages)
            mine[what, messages].append(run["ops_per_s"])
            slept[what, messages].append(run["sleeps"])
    for what, messages in ways:
        title = f"{what} {'by messages' if messages else 'over TCP'} beside ib_send_lat"
        line(title, peers, mine[what, messages], "/s")
        print(f"{'':38} threads slept {statistics.median(slept[what, messages]):.1f} times a request")
    scene.server.stop()


if __name__ == "__main__":
    main()
