"""A server whose RDMA device comes and goes: soft-RoCE whose port goes down, and which is taken away.

rdma_device.py MEMKV

The device is closed at once in both cases, since `rdma link delete` waits for whoever has it open. Clients
that come meanwhile are told that there is no RDMA, and are served over TCP.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import rdma_link
import server as servers

WAIT_S = 90.0  # for what must come about by itself; seconds on this emulated machine


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"rdma_device: {what}\n{detail}")


def ask(path: str) -> dict:
    """An answer of the administration endpoint, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{servers.PORT + 1}{path}", timeout=20) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as problem:
        return json.load(problem)


def becomes(server: servers.Server, active: bool) -> dict:
    """Waits until RDMA is in use, or is not, and returns the rail."""
    begin = time.monotonic()
    while (found := ask("/v1/status")["rdma"])["active"] != active:
        if time.monotonic() - begin > WAIT_S:
            server.fail(f"rdma_device: active does not become {active}: {found}")
        time.sleep(0.05)
    rail = found["rails"][0]
    print(f"active {active} after {time.monotonic() - begin:.1f} s: {rail['reason']!r}", flush=True)
    return rail


def told(server: servers.Server) -> bool:
    """What a client that comes now is told, which is served over TCP whatever it is."""
    with server.client() as client:
        return bool(client.server.capabilities & servers.page.CAPABILITY_RDMA)


def main(memkv: str) -> None:
    rdma_link.make()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="rdma-device-", dir="/run"))
    server = servers.Server(
        memkv,
        f"network: {{ address: '127.0.0.1:{servers.PORT}' }}\n"
        f"rdma: {{ device: {rdma_link.NAME}, num_worker_threads: 2 }}\n"
        "memory: { max_size: 32 MiB, block_size: 2 MiB }\n"
        "storage: { mode: memory, drives: [{ media: memory, max_size: 32 MiB }] }\n",
        directory,
    )
    server.start()
    rail = becomes(server, True)
    expect(rail["state"] == "online" and "rc" in rail["transports"], "the rail is not as it should be", rail)
    expect(rail["reachable_bytes"] == 64 << 20, "the pool or the drive cannot be reached", rail)
    expect(len(ask("/v1/status")["rdma"]["rails"]) == 2, "there are not two rails")
    expect(told(server), "a client is not told of RDMA")

    rdma_link.take_port_down()
    rail = becomes(server, False)
    expect(rdma_link.NAME in rail["reason"], "the reason does not name the device", rail)
    expect(ask("/v1/health")["status"] == "degraded", "the server is not degraded without its device")
    expect(not told(server), "a client is told of RDMA that is not there")
    rdma_link.bring_port_up()
    becomes(server, True)
    expect(told(server), "a client is not told that RDMA is back")

    begin = time.monotonic()
    rdma_link.delete()  # waits until the server has closed it
    print(f"the device was taken away within {time.monotonic() - begin:.1f} s", flush=True)
    becomes(server, False)
    expect(not told(server), "a client is told of a device that was taken away")
    rdma_link.add()
    becomes(server, True)

    expect(ask("/v1/status")["rdma"]["sessions"] == 0, "there are sessions of nobody")
    server.stop()
    show = ["rdma", "resource", "show", "qp"]
    left = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    expect("memkv" not in left, "a server that stopped left queue pairs", left)


if __name__ == "__main__":
    main(sys.argv[1])
