"""Raw drives that fail, vanish, flap, and come back; with a server that must never bring back anything old.

drive_failure_test.py MEMKV [hanging | SCENARIO...]

Needs root, loop devices, and a mount namespace; else it exits with 77.

Loop devices stand for drives. One fails by a file system behind it that is full; one vanishes when its loop
device is cut down to a page; one hangs while the file system behind it is frozen; one is slow by a limit of
the kernel. MEMKV_TEST_SEED repeats a run's choices, MEMKV_TEST_CYCLES asks for more cycles of the campaign.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from loop_drives import PAGE, Freezer, Loops, Throttle, allocated_bytes, set_size_limit
from raw_server import REFUSALS, ConnectionLost, Model, RawServer, Status, StatusError, Wrong, home_of

MEMKV = os.path.abspath(sys.argv[1])
SKIPPED = 77
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
CYCLES = int(os.environ.get("MEMKV_TEST_CYCLES", 12))
IMAGE_BYTES = 96 << 20
MEMORY = "700m"  # of one scenario's images, and of what is around them
ROOM = "20m"  # of the file system behind a drive that is to fail
VICTIM = 2  # the drive that fails, of three


def expect(condition, what):
    if not condition:
        raise Wrong(what)


class Bench:
    """Drives, what lies behind them, and the server on them, for one scenario."""

    def __init__(self, folder, chance, drives, room=None, flap_threshold=5, hangs=False):
        self.folder = tempfile.mkdtemp(dir=folder)
        self.chance, self.loops, self.server = chance, Loops(self.folder, IMAGE_BYTES), None
        self.links, self.devices, self.small, self.freezer = [], [], None, None
        try:
            for index in range(drives):
                behind = self.folder
                if room is not None and index == VICTIM:
                    behind = self.small = os.path.join(self.folder, "small")
                    os.mkdir(behind)
                    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", behind], check=True)
                if hangs and index == VICTIM:
                    behind = os.path.join(self.folder, "freezer")
                    self.freezer = Freezer(behind, 2 * IMAGE_BYTES)
                # The server knows the drive by a name that stays when the loop device becomes another one.
                device = self.loops.make(chance.choice([512, 4096]), folder=behind)
                link = os.path.join(self.folder, f"drive{index}")
                os.symlink(device, link)
                self.links.append(link)
                self.devices.append(device)
            self.server = RawServer(MEMKV, self.folder, self.links, flap_threshold)
            self.model = Model(chance)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is not None and self.server is not None:
                print("the end of the server's log:", *self.server.log().splitlines()[-40:], sep="\n")
        finally:
            self.close()

    def close(self):
        if self.freezer is not None:
            self.freezer.thaw()
        for device in self.devices:
            if device is not None:
                set_size_limit(device, 0)
        try:
            if self.server is not None:
                self.server.kill()
        finally:
            self.loops.free_all()
            if self.small is not None:
                subprocess.run(["umount", self.small], check=False)
            if self.freezer is not None:
                self.freezer.close()
            shutil.rmtree(self.folder)

    def cut(self, index):
        """The drive vanishes, also for whoever uses it."""
        set_size_limit(self.devices[index], PAGE)

    def uncut(self, index):
        set_size_limit(self.devices[index], 0)

    def take_out(self, index):
        image = self.loops.detach(self.devices[index])
        self.devices[index] = None
        os.unlink(self.links[index])
        return image

    def put_in(self, index, image):
        self.devices[index] = self.loops.attach(image, 4096)
        os.symlink(self.devices[index], self.links[index])

    def keys(self, count, home=None, name="key"):
        found, number = [], 0
        while len(found) < count:
            key = f"{name}-{number}".encode()
            if home is None or home_of(key, len(self.links)) == home:
                found.append(key)
            number += 1
        return found

    def on_victim(self, key):
        return home_of(key, len(self.links)) == VICTIM

    def size(self):
        return self.chance.choice([0, 1, 4096, 20_000, 65_536, 150_000])

    def put_all(self, client, keys):
        for key in keys:
            status = self.model.put(client, key, self.size())
            expect(status == Status.Ok, f"a put of {key} was answered with {status.name}")

    def put_until(self, client, key, wanted, seconds=20):
        """Repeats a put until it is answered so."""
        end = time.monotonic() + seconds
        while (status := self.model.put(client, key, 30_000)) != wanted:
            expect(time.monotonic() < end, f"puts of {key} are still answered with {status.name}")
            time.sleep(0.02)

    def fill_victim(self, client, name):
        """Stores blocks on the drive that has no room for them, until it fails."""
        for key in self.keys(200, VICTIM, name):
            if (status := self.model.put(client, key, 500_000)) != Status.Ok:
                return status
        raise Wrong("a drive without room took everything")

    def make_room(self):
        subprocess.run(["mount", "-o", "remount,size=200m", self.small], check=True)

    def health(self, index):
        return json.loads(self.server.run("drive", "health", self.links[index], "--json"))


def a_drive_that_failed_comes_back_without_anything_old(folder, chance):
    with Bench(folder, chance, 3, room=ROOM) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        server.start()
        client = server.connect()
        keys = bench.keys(60)
        bench.put_all(client, keys)
        striped = b"striped over the drives"
        expect(model.put(client, striped, 9_000_000) == Status.Ok, "a striped put")
        expect(model.check(client)[1:] == (0, 0), "everything is there")

        def uncertain(key):
            return lost(key) or key == striped

        victims = [key for key in keys if lost(key)]
        others = [key for key in keys if not lost(key)]
        bench.fill_victim(client, "fill")
        bench.cut(VICTIM)
        server.wait_for("drive is offline and will be opened again")
        model.check(client, may_miss=uncertain, may_refuse=uncertain)
        bench.put_all(client, others[::2])
        refusals = {model.put(client, key, 10_000) for key in victims[:2]}
        expect(refusals == {Status.Unavailable}, f"a drive away for a moment keeps its keys: {refusals}")

        server.wait_for("its keys go to the others from now on")
        bench.put_until(client, victims[0], Status.Ok)
        rewritten, deleted, untouched = victims[0::3], victims[1::3], victims[2::3]
        bench.put_all(client, rewritten)
        for key in deleted:
            expect(model.delete(client, key) == Status.Ok, "a delete while the drive is away")
        for key in others[1::4]:
            expect(model.delete(client, key) == Status.Ok, "a delete on another drive")
        came = model.check(client, may_miss=lambda key: uncertain(key) and key not in rewritten)[0]
        expect(came >= len(rewritten), "what was stored while it was away is there")

        mark = server.mark()
        bench.make_room()
        bench.uncut(VICTIM)
        while not server.said("drive is back", mark):
            model.check(client, may_miss=uncertain, may_refuse=lost)
        model.check(client, may_miss=uncertain)
        there = [key for key in untouched if client.get(key) is not None]
        expect(there == untouched, "what did not change while it was away is there again")
        bench.put_all(client, rewritten[::2])
        client.close()
        server.stop()
        found = bench.health(VICTIM)["failures"]
        expect(found["failure_count"] >= 1 and found["last_failed_at"] > 0, f"it is noted: {found}")
        expect(not found["blacklisted"], f"and forgiven: {found}")

        for absent in (None, 0, 1, None):
            image = bench.take_out(absent) if absent is not None else None
            server.start()
            client = server.connect()
            model.check(client, may_miss=lambda key: True)
            if absent is None:
                bench.put_all(client, chance.sample(keys, 10))
            client.close()
            server.stop()
            if image is not None:
                bench.put_in(absent, image)


def a_drive_that_flaps_stays_away_until_it_is_reset(folder, chance):
    with Bench(folder, chance, 3, room=ROOM, flap_threshold=1) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        server.start()
        client = server.connect()
        keys = bench.keys(30)
        bench.put_all(client, keys)
        victims = [key for key in keys if lost(key)]
        bench.fill_victim(client, "fill")
        server.wait_for("drive is back")
        model.check(client, may_miss=lost)
        expect(not server.said("blacklisted"), "once is not too often")
        bench.fill_victim(client, "more")
        server.wait_for("drive is blacklisted")
        server.wait_for("drive stays offline")
        bench.put_until(client, victims[0], Status.Ok)
        bench.put_all(client, victims[1:])
        model.check(client, may_miss=lambda key: lost(key) and key not in victims)
        client.close()
        server.stop(in_order=False)
        expect(server.said("was offline when the server stopped"), "it says why it did not stop in order")
        found = bench.health(VICTIM)["failures"]
        expect(found["blacklisted"] and found["failure_count"] == 2, f"it is noted: {found}")

        bench.make_room()
        mark = server.mark()
        server.start()
        client = server.connect()
        expect(server.said("drive stays offline: it is blacklisted", mark), "a restart does not unlock it")
        model.check(client, may_miss=lambda key: lost(key) and key not in victims)
        bench.put_all(client, victims[::2])
        client.close()
        server.stop()
        server.run("drive", "reset", bench.links[VICTIM])
        expect(bench.health(VICTIM)["failures"]["failure_count"] == 0, "a reset forgives")

        mark = server.mark()
        server.start()
        client = server.connect()
        expect(not server.said("serving without a drive", mark), "it is taken in again")
        came = model.check(client, may_miss=lost)[0]
        expect(came > 0, "the other drives keep what they have")
        bench.put_all(client, keys)
        expect(model.check(client, may_miss=lambda key: key not in keys)[2] == 0, "all drives serve")
        client.close()
        server.stop()
        expect(bench.health(VICTIM)["fill"]["blocks"] >= len(victims), "blocks lie on it again")


def a_start_without_a_drive_makes_it_stale(folder, chance):
    with Bench(folder, chance, 3) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        keys = bench.keys(45)
        for _ in range(2):
            server.start()
            client = server.connect()
            expect(model.check(client)[1:] == (0, 0), "after a stop in order everything is there")
            bench.put_all(client, keys)
            client.close()
            server.stop()

        image = bench.take_out(VICTIM)
        mark = server.mark()
        server.start()
        expect(server.said("serving without a drive", mark), "it says so")
        client = server.connect()
        model.check(client, may_miss=lost)
        bench.put_all(client, keys[0::3])
        for key in keys[1::3]:
            expect(model.delete(client, key) == Status.Ok, "a delete")
        may_miss = {key for key in keys[2::3] if lost(key)}
        model.check(client, may_miss=lambda key: key in may_miss)
        client.close()
        server.stop()

        bench.put_in(VICTIM, image)
        mark = server.mark()
        server.start()
        expect(server.said("it starts empty", mark), "a drive that missed something starts empty")
        client = server.connect()
        came = model.check(client, may_miss=lost)[0]
        expect(came > 0, "the other drives keep what is theirs")
        bench.put_all(client, keys)
        client.close()
        server.stop()
        server.start()
        client = server.connect()
        expect(model.check(client)[1:] == (0, 0), "after a stop in order everything is there")
        client.close()
        server.stop()


def a_stop_ends_the_wait_for_a_drive_in_use(folder, chance):
    """A start waits up to 30 s for a drive that another process has open."""
    with Bench(folder, chance, drives=2) as bench:
        server = bench.server
        server.start()
        with server.connect() as client:
            bench.put_all(client, bench.keys(20))
        server.stop()
        for held in (bench.devices, bench.devices[:1]):
            files = [os.open(device, os.O_RDONLY | os.O_EXCL) for device in held]
            try:
                mark = server.mark()
                server.begin()
                server.wait_for("waiting for it", mark)
                begin = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                code = server.process.wait(timeout=60)
                took = time.monotonic() - begin
            finally:
                for file in files:
                    os.close(file)
            expect(took < 15, f"the stop of a start that waits took {took:.1f} s")
            expect(code == 0, f"the stop of a start that waits ended with {code}")
            expect(server.said("stopped before it served", mark), "the log tells of the stop")
            expect(not server.said(" ERROR ", mark), "a stop is no error")
            server.process = None
            server.wait_for_drives()
        server.start()
        with server.connect() as client:
            came, _, _ = bench.model.check(client)
        expect(came == 20, f"{came} of 20 blocks are there after the starts that were stopped")
        server.stop()


def drives_and_servers_die_in_turn(folder, chance):
    """At least one drive of each round took part in the one before: else nobody could know what is old."""
    with Bench(folder, chance, 3) as bench:
        server, model = bench.server, bench.model
        keys = bench.keys(40)
        looked = came = 0

        def work(seconds):
            """Anything, for a while; ends early when the server is gone."""
            nonlocal looked, came
            end = time.monotonic() + seconds
            client = server.connect()
            while time.monotonic() < end:
                key = chance.choice(keys)
                what = chance.random()
                if what < 0.5:
                    model.put(client, key, bench.size())
                elif what < 0.7:
                    model.delete(client, key)
                else:
                    one = Model(chance)
                    one.last, one.pending = {key: model.last.get(key)}, {key: model.pending.get(key, [])}
                    came += one.check(client, lambda _: True, lambda _: True)[0]
                    model.last[key], model.pending[key] = one.last[key], one.pending[key]
                    looked += 1
            client.close()

        def look_at_all():
            client = server.connect()
            model.check(client, may_miss=lambda key: True, may_refuse=lambda key: True)
            client.close()

        for cycle in range(CYCLES):
            absent = chance.choice([0, 1, 2, None])
            if absent is not None:
                bench.cut(absent)
            mode = chance.choice(["start", "serve", "join", "join", "fail"])
            if mode == "start":
                server.begin()
                time.sleep(chance.uniform(0, 0.15))
            else:
                server.start()
                look_at_all()
                work(0.2)
                if mode == "join" and absent is not None:
                    bench.uncut(absent)
                    work(chance.uniform(0, 0.5))
                elif mode == "fail" and absent is None:
                    absent = chance.choice([0, 1, 2])
                    bench.cut(absent)
                    work(chance.uniform(0, 0.3) + chance.choice([0, 5]) * (cycle % 4 == 3))
                else:
                    work(chance.uniform(0, 0.2))
                look_at_all()
            server.kill()
            if absent is not None:
                bench.uncut(absent)
        server.start()
        look_at_all()
        expect(came > 0, f"some of {looked} blocks came")
        server.kill()


def space_of_deleted_blocks_is_given_back(folder, chance):
    with Bench(folder, chance, 1) as bench:
        server, model = bench.server, bench.model
        image = bench.loops.image(bench.devices[0])
        keys = bench.keys(40)

        def shrinks_below(limit, what):
            end = time.monotonic() + 15
            while (now := allocated_bytes(image)) > limit:
                expect(time.monotonic() < end, f"{what}: {now} bytes of the image are taken")
                time.sleep(0.1)

        def fill(client):
            for key in keys:
                expect(model.put(client, key, 1_000_000) == Status.Ok, "a put")
            expect(allocated_bytes(image) > 40_000_000, "blocks take space")

        def delete(client, which):
            for key in which:
                expect(model.delete(client, key) == Status.Ok, "a delete")

        server.start()
        client = server.connect()
        fill(client)
        delete(client, keys[4:])
        shrinks_below(16_000_000, "a running server discards what was deleted")
        expect(model.check(client)[1] == 36, "what was not deleted is there")
        fill(client)
        model.check(client)
        delete(client, keys[4:])
        client.close()
        server.kill()
        expect(allocated_bytes(image) > 30_000_000, "the server was killed before it discarded everything")
        server.start()
        client = server.connect()
        shrinks_below(16_000_000, "a backlog survives the server")
        expect(model.check(client)[1] == 36, "what was not deleted is there")
        fill(client)
        model.check(client)
        client.close()
        server.stop()


def begin_put(bench, client, key):
    """A put whose answer is not waited for: the value may be stored or not."""
    value = bench.model.value(key, 30_000)
    bench.model.pending.setdefault(key, []).append(value)
    return client.submit_put(key, value)


def a_drive_that_hangs_holds_up_nobody_else(folder, chance):
    with Bench(folder, chance, 3, hangs=True) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        server.start()
        client = server.connect()
        keys = bench.keys(60)
        bench.put_all(client, keys)
        victims = [key for key in keys if lost(key)]
        others = [key for key in keys if not lost(key)]
        expect(model.check(client)[1:] == (0, 0), "everything is there")

        bench.freezer.freeze()
        frozen_at = time.monotonic()
        waiting = server.connect()
        hanging = begin_put(bench, waiting, victims[0])
        served = 0
        while not server.said("drive hangs: it is offline"):
            expect(time.monotonic() - frozen_at < 40, "a drive that hangs goes offline")
            key = chance.choice(others)
            expect(model.put(client, key, bench.size()) == Status.Ok, "a put on another drive meanwhile")
            one = client.get(chance.choice(others[::2]))
            expect(one is not None, "a get from another drive meanwhile")
            served += 1
        took = time.monotonic() - frozen_at
        expect(9 < took, f"a drive may be silent for ten seconds, not {took:.1f}")
        expect(served > 10, f"{served} puts and gets were served while it hung")
        try:
            waiting.finish_put(hanging)
            raise Wrong("a put on a drive that hangs was acknowledged")
        except StatusError as answer:
            expect(answer.status in REFUSALS, f"the put that hung was answered with {answer.status.name}")
        waiting.close()
        came, missed, refused = model.check(client, may_miss=lost, may_refuse=lost)
        expect(missed + refused == len(victims) and came == len(others), "only its blocks are misses")

        server.wait_for("its keys go to the others from now on")
        bench.put_until(client, victims[1], Status.Ok)
        expect(model.delete(client, victims[2]) == Status.Ok, "a delete while it hangs")
        mark = server.mark()
        bench.freezer.thaw()
        server.wait_for("drive is back", mark, 60)
        model.check(client, may_miss=lost)
        for key in victims[3:]:
            expect(client.get(key) is not None, "what did not change meanwhile is there again")
        bench.put_all(client, keys)
        client.close()
        server.stop()
        server.start()
        client = server.connect()
        expect(model.check(client)[1:] == (0, 0), "everything is there")
        client.close()
        server.stop()
        failures = bench.health(VICTIM)["failures"]
        expect(failures["failure_count"] >= 1 and not failures["blacklisted"], f"it is noted: {failures}")


def a_server_stops_in_time_while_a_drive_hangs(folder, chance):
    with Bench(folder, chance, 3, hangs=True) as bench:
        server, model = bench.server, bench.model
        server.start()
        client = server.connect()
        keys = bench.keys(30)
        bench.put_all(client, keys)
        victims = [key for key in keys if bench.on_victim(key)]
        bench.freezer.freeze()
        begin_put(bench, client, victims[0])
        time.sleep(chance.uniform(0, 2))
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        # Requests get 15 s and then the drives 15 s; the rest is for a machine that is busy.
        code = server.process.wait(timeout=45)
        print(f"  the server ended with {code} after {time.monotonic() - begun:.1f} s", flush=True)
        expect(code == 1, f"a drive was not closed in order, and the server ended with {code}")
        server.process = None
        bench.freezer.thaw()
        server.wait_for_drives()
        client.close()
        server.start()
        client = server.connect()
        expect(model.check(client)[1:] == (0, 0), "what was acknowledged is there")
        bench.put_all(client, keys)
        client.close()
        server.stop()


def a_drive_that_stutters_returns_nothing_old(folder, chance):
    """Slow by orders of magnitude: it hangs most of the time, and never for the ten seconds."""
    with Bench(folder, chance, 3, hangs=True, flap_threshold=100) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        server.start()
        client = server.connect()
        keys = bench.keys(30)
        bench.put_all(client, keys)
        victims = [key for key in keys if lost(key)]
        others = [key for key in keys if not lost(key)]
        slowly = answered = 0
        for _ in range(5):
            bench.freezer.freeze()
            waiting = server.connect()
            begun = [begin_put(bench, waiting, key) for key in chance.sample(victims, min(3, len(victims)))]
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                expect(model.put(client, chance.choice(others), 4096) == Status.Ok, "a put on another drive")
            bench.freezer.thaw()
            for each in begun:
                try:
                    waiting.finish_put(each)
                    slowly += 1
                except StatusError as answer:
                    expect(answer.status in REFUSALS, f"it was answered with {answer.status.name}")
                answered += 1
            waiting.close()
            model.check(client, may_miss=lost, may_refuse=lost)
        expect(slowly > 0, f"none of {answered} puts on a slow drive was done")
        client.close()
        server.kill()
        server.start()
        client = server.connect()
        model.check(client, may_miss=lost)
        bench.put_all(client, keys)
        expect(model.check(client)[1:] == (0, 0), "everything is there")
        client.close()
        server.stop()


def a_drive_that_is_slow_goes_offline_alone(folder, chance):
    """Few writes a second, by the kernel's own limit: each is done in the end, and none takes ten seconds."""
    with Bench(folder, chance, 3) as bench:
        server, model, lost = bench.server, bench.model, bench.on_victim
        server.start()
        client = server.connect()
        keys = bench.keys(40)
        bench.put_all(client, keys)
        victims = [key for key in keys if lost(key)]
        others = [key for key in keys if not lost(key)]
        try:
            throttle = Throttle(server.process.pid, bench.devices[VICTIM])
        except OSError as problem:
            print(f"  left out: {problem}", flush=True)
            return
        try:
            throttle.writes_a_second(6)
            begun, rounds, slowest = time.monotonic(), 0, 0.0
            while not server.said("was slow"):
                expect(time.monotonic() - begun < 60, "a slow drive goes offline")
                waiting = [(connection, None) for connection in (server.connect() for _ in range(8))]
                waiting = [(each, begin_put(bench, each, chance.choice(victims))) for each, _ in waiting]
                for _ in range(10):
                    key, asked = chance.choice(others), time.monotonic()
                    expect(model.put(client, key, 4096) == Status.Ok, "a put on another drive meanwhile")
                    slowest = max(slowest, time.monotonic() - asked)
                for each, put in waiting:
                    try:
                        each.finish_put(put)
                    except StatusError as answer:
                        expect(answer.status in REFUSALS, f"it was answered with {answer.status.name}")
                    each.close()
                rounds += 1
            took = time.monotonic() - begun
            print(f"  slow enough after {took:.1f} s, others took {slowest:.2f} s at most", flush=True)
            expect(server.said("drive is offline and will be opened again"), "it is tried again")
            expect(not server.said("drive hangs"), "it answered all the time")
            model.check(client, may_miss=lost, may_refuse=lost)
            for key in others:
                expect(model.put(client, key, 4096) == Status.Ok, "the others go on")
            mark = server.mark()
            throttle.writes_a_second(None)
            if not server.said("drive is back"):
                server.wait_for("drive is back", mark, 60)
        finally:
            throttle.close()
        model.check(client, may_miss=lost)
        for key in keys:
            bench.put_until(client, key, Status.Ok)
        client.close()
        server.stop()
        found = bench.health(VICTIM)["failures"]
        expect(found["failure_count"] >= 1 and not found["blacklisted"], f"it is noted: {found}")


SCENARIOS = (
    a_drive_that_failed_comes_back_without_anything_old,
    a_drive_that_flaps_stays_away_until_it_is_reset,
    a_start_without_a_drive_makes_it_stale,
    a_stop_ends_the_wait_for_a_drive_in_use,
    drives_and_servers_die_in_turn,
    space_of_deleted_blocks_is_given_back,
)
# Each waits for the ten seconds after which a drive counts as hung, or for the bound of a stop.
HANGING = (
    a_drive_that_hangs_holds_up_nobody_else,
    a_server_stops_in_time_while_a_drive_hangs,
    a_drive_that_stutters_returns_nothing_old,
    a_drive_that_is_slow_goes_offline_alone,
)


def inside(names):
    print(f"drive_failure_test: MEMKV_TEST_SEED={SEED}", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as at_end:
        # What lies behind the drives is memory, so that no other load of this machine makes them slow.
        words = ["mount", "-t", "tmpfs", "-o", f"size={MEMORY}", "none", folder]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            at_end.callback(subprocess.run, ["umount", folder], check=False)
        else:
            print("drive_failure_test: no memory behind the drives, they are as slow as the disk")
        loops = Loops(folder, IMAGE_BYTES)
        try:
            loops.free(loops.make(4096))
        except OSError as problem:
            print(f"drive_failure_test: skipped, loop devices are not to be had here: {problem}")
            return SKIPPED
        finally:
            loops.free_all()
        if names == ["hanging"]:
            chosen = HANGING
        else:
            chosen = [one for one in SCENARIOS + HANGING if one.__name__ in names] or SCENARIOS
        for scenario in chosen:
            begin = time.monotonic()
            try:
                scenario(folder, random.Random(f"{SEED} {scenario.__name__}"))
            except (Wrong, ConnectionLost, OSError, subprocess.SubprocessError):
                traceback.print_exc()
                print(f"drive_failure_test: {scenario.__name__} failed (MEMKV_TEST_SEED={SEED})")
                return 1
            print(f"{scenario.__name__}: {time.monotonic() - begin:.1f} s", flush=True)
    print("drive_failure_test: passed")
    return 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that loop devices and mounts are given back
    if os.environ.get("MEMKV_TEST_INSIDE") == "1":
        return inside(sys.argv[2:])
    if os.geteuid() != 0:
        print("drive_failure_test: skipped, needs root for loop devices")
        return SKIPPED
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        print("drive_failure_test: skipped, mount namespaces are not to be had here")
        return SKIPPED
    os.environ["MEMKV_TEST_INSIDE"] = "1"
    program = [sys.executable, os.path.abspath(__file__), MEMKV, *sys.argv[2:]]
    os.execvp("unshare", ["unshare", "--mount", *program])


if __name__ == "__main__":
    sys.exit(main())
