"""Clients that ask for RDMA and do not mean it, beside one that does.

rdma_hostile.py MEMKV MEMKV-BENCH RDMA_PEER

Addresses that lead nowhere, sessions of others, sessions that ended, more sessions than there may be, keys
of memory that are wrong, connections that end while a session is made. Each is answered as section 17 of
docs/formats/wire.md says, or ends; the connection serves on where it should; the server has no session left
afterwards; and a client that reads and writes by RDMA all the while sees nothing of it.

MEMKV_TEST_SEED repeats the choices.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import time

import rdma_link
import server as servers
from rdma_scenario import Scene, wait_until

page = servers.page
Status = page.Status
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
SOON_S = 20.0  # an answer of a device that gave up, in this emulated machine
ENDED_ATTACHES = 120
KEY, BYTES, BYTE = b"hostile/value", 300_000, 0x5A
NOBODY = 0x7FFFF0  # a number that no queue pair of this device has
SILENT, UNKNOWN = "10.7.0.77", "10.7.0.99"  # hosts that are not there; of the first the MAC address is known


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"rdma_hostile: {what}\n{detail}")


def gid(address: str) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def nowhere(address: str = rdma_link.ADDRESS, number: int = NOBODY) -> page.RdmaAddress:
    return page.RdmaAddress(path_mtu=4096, gid=gid(address), number=number, reads_served_max=16)


class Hostile:
    """A connection, and what it asks for."""

    def __init__(self, server: servers.Server) -> None:
        self.client = server.client()

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *unused: object) -> None:
        self.client.close()

    def ask(self, opcode: int, variable: bytes) -> page.Reply:
        return self.client.wait(self.client.submit(opcode, variable))

    def attach(self, address: page.RdmaAddress) -> tuple[Status, int, page.RdmaAddress | None]:
        """What is answered, the session and the server's address."""
        reply = self.ask(page.Opcode.TcpAttach, page.encode_attach(0, address))
        if reply.status is not Status.Ok:
            return reply.status, 0, None
        expect(len(reply.variable) == 72, "an attach is answered with another length", reply)
        session, kind, mtu, theirs, lid, number, packet, reads, key = struct.unpack(
            "<Q8xB3xI16sH2xIIIQ8x", reply.variable
        )
        expect(session != 0, "a session has the number 0")
        return Status.Ok, session, page.RdmaAddress(kind, mtu, theirs, lid, number, packet, reads, key)

    def session(self, address: page.RdmaAddress) -> int:
        status, session, _ = self.attach(address)
        expect(status is Status.Ok, "there is no session to be had", status)
        return session

    def detach(self, session: int) -> Status:
        return self.ask(page.Opcode.TcpDetach, page.encode_session(session)).status

    def submit(self, opcode: int, session: int, rkey: int = 7, address: int = 0x10000) -> int:
        """A batch of one item, not waited for."""
        if opcode == page.Opcode.BatchRead:
            item = page.ReadItem(KEY, rkey, address, BYTES)
        else:
            item = page.WriteItem(b"hostile/new", rkey, address, BYTES, b"\1" * 16)
        return self.client.submit(opcode, page.encode_session_batch(session, [item]))

    def outcome(self, request: int) -> Status:
        """Of the item, or of the whole batch."""
        reply = self.client.wait(request)
        return page.status_of(reply.variable[8]) if reply.status is Status.Ok else reply.status

    def batch(self, opcode: int, session: int, **named: int) -> Status:
        return self.outcome(self.submit(opcode, session, **named))

    def serves(self) -> None:
        """The connection is as good as before, and nothing of a write that failed is there."""
        self.client.ping()
        found = self.client.get(KEY)
        expect(found is not None and found.data == bytes([BYTE]) * BYTES, "the connection does not serve on")
        expect(self.client.exists(b"hostile/new") is None, "a write without its bytes is visible")


BATCHES = (page.Opcode.BatchRead, page.Opcode.BatchWrite)


class Play:
    """The scenes, with a server and a client that is none of them."""

    def __init__(self, memkv: str, bench: str, peer: str) -> None:
        self.scene = Scene(memkv, bench, "memory")
        self.server = self.scene.server
        self.peer = peer
        self.chance = random.Random(SEED)

    def counted(self, sessions: int) -> None:
        """Waits for the server's word, which comes a little later than its answers."""
        wait_until(f"{sessions} sessions", lambda: self.scene.sessions() == sessions)

    def addresses_that_lead_nowhere(self) -> None:
        shape = ["--block-size", "65536", "--keys", "32"]
        others = self.scene.begin("rdma", "mixed", *shape, "--duration", "30")
        wait_until("a client with sessions", lambda: self.scene.sessions() >= 1)
        for where, address in (("a number of nobody", nowhere()), ("a silent host", nowhere(SILENT, 77))):
            for opcode in BATCHES:
                with Hostile(self.server) as one:
                    session = one.session(address)
                    begin = time.monotonic()
                    request = one.submit(opcode, session)
                    self.scene.must("rdma", "get", "--block-size", "65536", "--keys", "8", "--ops", "16")
                    status = one.outcome(request)
                    took = time.monotonic() - begin
                    expect(status is Status.Unavailable, f"{where}: {opcode.name}", status)
                    expect(took < SOON_S, f"{where}: {opcode.name} takes long", took)
                    again = one.batch(opcode, session)
                    expect(again is Status.SessionEnded, f"{where}: the session goes on", again)
                    expect(one.detach(session) is Status.NotFound, f"{where}: the session is still there")
                    one.serves()
                    print(f"{where}: {opcode.name} is {status.name} after {took:.1f} s", flush=True)
        with Hostile(self.server) as one:
            begin = time.monotonic()
            status, session, _ = one.attach(nowhere(UNKNOWN, 77))
            took = time.monotonic() - begin
            expect(took < SOON_S, "an attach to a host that does not exist takes long", took)
            expect(status in {Status.Ok, Status.Unavailable, Status.BadRequest}, "an unknown host", status)
            if status is Status.Ok:
                status = one.batch(page.Opcode.BatchRead, session)
                expect(status is Status.Unavailable, "a read to an unknown host", status)
            one.serves()
            print(f"an unknown host is {status.name}, attached after {took:.1f} s", flush=True)
        said, _ = others.communicate(timeout=120)
        expect(others.returncode == 0, "a client beside them saw it", said)
        self.scene.no_session_left("addresses that lead nowhere")

    def sessions_of_others(self) -> None:
        with Hostile(self.server) as one, Hostile(self.server) as other:
            session = one.session(nowhere())
            for opcode in BATCHES:
                for named in (session, 0):
                    status = other.batch(opcode, named)
                    expect(status is Status.SessionEnded, f"{opcode.name} on session {named}", status)
            expect(other.detach(session) is Status.NotFound, "another's session can be detached")
            self.counted(1)
            other.serves()
            expect(one.detach(session) is Status.Ok, "its own session cannot be detached")
            expect(one.detach(session) is Status.NotFound, "a session is detached twice")
            for opcode in BATCHES:
                status = one.batch(opcode, session)
                expect(status is Status.SessionEnded, f"{opcode.name} after the detach", status)
            one.serves()
        self.scene.no_session_left("sessions of others")

    def detach_under_way(self) -> None:
        """The answer to a detach says that nothing is under way: the batch is answered before it."""
        for opcode in BATCHES:
            with Hostile(self.server) as one:
                session = one.session(nowhere())
                batch = one.submit(opcode, session)
                time.sleep(self.chance.uniform(0.0, 0.5))
                begin = time.monotonic()
                status = one.detach(session)
                took = time.monotonic() - begin
                expect(status is Status.Ok, "a detach with a batch under way", status)
                expect(took < SOON_S, "a detach with a batch under way takes long", took)
                expect(batch in one.client._done, "a detach is answered before the batch on its session")
                status = one.outcome(batch)
                expect(status in (Status.Unavailable, Status.SessionEnded), opcode.name, status)
                one.serves()
        self.scene.no_session_left("detaches under way")

    def too_many(self) -> None:
        with Hostile(self.server) as one:
            most = page.SESSIONS_CONNECTION_MAX
            opened = [one.session(nowhere()) for _ in range(most)]
            expect(len(set(opened)) == most, "two sessions have one number", opened)
            expect(one.attach(nowhere())[0] is Status.Busy, "there is one session too many")
            self.counted(most)
            with Hostile(self.server) as other:
                status = other.detach(other.session(nowhere()))
                expect(status is Status.Ok, "another connection has no session", status)
            expect(one.detach(opened.pop()) is Status.Ok, "one of many sessions cannot be detached")
            one.session(nowhere())
            expect(one.attach(nowhere())[0] is Status.Busy, "there is one session too many after a detach")
            one.serves()
        self.scene.no_session_left("too many attaches")

    def attaches_that_are_not_waited_for(self) -> None:
        reset = struct.pack("ii", 1, 0)
        for number in range(ENDED_ATTACHES):
            one = Hostile(self.server)
            if number % 3 == 2:  # a part of the frame
                header = page.Header(
                    page.Opcode.TcpAttach,
                    one.client._take_id(),
                    variable=page.encode_attach(0, nowhere()),
                    connection_tag=one.client.connection_tag,
                )
                frame = page.seal(bytes.fromhex(servers.KEY_TEXT), header.encode(), time.time_ns())
                one.client.socket.sendall(frame[: self.chance.randrange(1, len(frame))])
            else:
                for _ in range(self.chance.choice((1, 1, 3, 17))):
                    one.client.submit(page.Opcode.TcpAttach, page.encode_attach(0, nowhere()))
            time.sleep(self.chance.choice((0.0, 0.0, 0.001, 0.01)))
            if self.chance.random() < 0.5:
                one.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            one.client.close()
        took = self.scene.no_session_left("attaches that were not waited for")
        print(f"{ENDED_ATTACHES} connections ended in the middle of an attach, no session after {took:.2f} s")

    def keys_of_memory(self) -> None:
        """A peer that is there, and whose device refuses what the message names."""
        wrong = {
            "a key of zero": lambda address, rkey: {"rkey": 0, "address": address},
            "another key": lambda address, rkey: {"rkey": rkey ^ 0x5A5A00, "address": address},
            "a range before it": lambda address, rkey: {"rkey": rkey, "address": address - 4096},
            "a range behind it": lambda address, rkey: {"rkey": rkey, "address": address + (1 << 20) - 4096},
            "nothing": None,
        }
        for what, change in wrong.items():
            for opcode in BATCHES:
                with Hostile(self.server) as one, Peer(self.peer) as peer:
                    status, session, theirs = one.attach(peer.address)
                    expect(status is Status.Ok, "there is no session with a real peer", status)
                    peer.connect(theirs)
                    peer.say("fill 7")
                    if opcode is page.Opcode.BatchRead:  # what is right comes about first
                        status = one.batch(opcode, session, rkey=peer.rkey, address=peer.memory)
                        expect(status is Status.Ok, "a read into a real peer", status)
                        expect(peer.say(f"count {BYTE}") == str(BYTES), "other bytes than those of the value")
                        peer.say("fill 7")
                    if change is None:
                        continue
                    status = one.batch(opcode, session, **change(peer.memory, peer.rkey))
                    expect(status is Status.MemoryRefused, f"{what}: {opcode.name}", status)
                    if "range" not in what:
                        expect(peer.say("count 7") == str(1 << 20), f"{what}: bytes were written")
                    expect(one.batch(opcode, session) is Status.SessionEnded, f"{what}: the session goes on")
                    one.serves()
        self.scene.no_session_left("keys of memory that are wrong")

    def whole(self) -> None:
        print(f"rdma_hostile: MEMKV_TEST_SEED={SEED}", flush=True)
        subprocess.run(
            ["ip", "neighbour", "add", SILENT, "lladdr", "02:00:00:00:00:77", "dev", "v0"], check=True
        )
        self.server.start()
        wait_until("RDMA", self.scene.active)
        with self.server.client() as client:
            client.put(KEY, bytes([BYTE]) * BYTES)
        for scene in (
            self.addresses_that_lead_nowhere,
            self.sessions_of_others,
            self.detach_under_way,
            self.too_many,
            self.attaches_that_are_not_waited_for,
            self.keys_of_memory,
        ):
            begin = time.monotonic()
            try:
                scene()
            except (AssertionError, SystemExit, page.MemkvError) as problem:
                self.server.fail(f"rdma_hostile: {scene.__name__}: {problem!r}")
            print(f"rdma_hostile: {scene.__name__} in {time.monotonic() - begin:.1f} s", flush=True)
        self.scene.must("rdma", "get", "--block-size", "65536", "--keys", "16", "--ops", "32")
        self.scene.no_session_left("all")
        self.server.stop()
        print("rdma_hostile: passed")


class Peer:
    """test/vm/rdma_peer.cpp: a queue pair that is there, with a mebibyte of memory."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program, rdma_link.NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        expect(line, "rdma_peer does not start")
        name, number, packet, reads, memory, rkey = line.split()
        self.address = page.RdmaAddress(
            path_mtu=4096,
            gid=bytes.fromhex(name),
            number=int(number),
            packet_number=int(packet),
            reads_served_max=int(reads),
        )
        self.memory, self.rkey = int(memory), int(rkey)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def say(self, order: str) -> str:
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def connect(self, server: page.RdmaAddress) -> None:
        told = f"{server.number} {server.packet_number} {server.reads_served_max} {server.path_mtu}"
        expect(self.say(f"connect {server.gid.hex()} {told}") == "ok", "rdma_peer cannot connect")


if __name__ == "__main__":
    rdma_link.make()
    Play(*sys.argv[1:4]).whole()
