"""Five servers, each on a host of its own, and clients of all of them, while servers and drives fail.

fleet_test.py MEMKV FLEET_LOAD    needs root, network namespaces and loop devices; else exits with 77

What must hold whatever happens: no wrong byte; no call longer than its deadline and a margin; servers that
are well go on answering; every key stays on its server; and what was stored is found when the fleet is back.
"""

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "scenario"), os.path.join(HERE, "..", "python")]

from development_license import environment as licensed  # noqa: E402
from fleet_network import Network, die_with_the_caller  # noqa: E402
from loop_drives import PAGE, Loops, set_size_limit, wait_until_given_back  # noqa: E402

MEMKV, LOAD = (os.path.abspath(word) for word in sys.argv[1:3])
SKIPPED = 77
SEED = int(os.environ.get("MEMKV_TEST_SEED", random.randrange(1 << 32)))
CYCLES = int(os.environ.get("MEMKV_TEST_CYCLES", 1))
ENVIRONMENT = licensed(MEMKV)
SERVERS = 5
RAW = (3, 4)  # servers on raw drives, three each
KEYS = 400
DEADLINE_MS, MARGIN_MS = 2_000, 3_000  # of a call of fleet_load; what a loaded machine may add
ADMIN_MS, ADMIN_MARGIN_S = 2_000, 3.0


class Wrong(Exception):
    """The fleet did what it must not do."""


def expect(condition, what):
    if not condition:
        raise Wrong(what)


class Server:
    def __init__(self, host, folder, key, drives):
        self.host, self.key, self.drives, self.process = host, key, drives, None
        self.address, self.url = f"{host.address}:9900", f"http://{host.address}:9901"
        self.log_path = os.path.join(folder, f"server{host.number}.log")
        self.config_path = os.path.join(folder, f"server{host.number}.yaml")
        if drives:
            subprocess.run([MEMKV, "setup", "--force", "--drives", *drives], check=True, capture_output=True)
            media = "".join(f"    - media: {drive}\n" for drive in drives)
        else:
            media = "".join(
                f"    - {{ media: {folder}/store{host.number}.{n}, max_size: 256 MiB }}\n" for n in (0, 1)
            )
        with open(self.config_path, "w", encoding="ascii") as file:
            file.write(
                f"network: {{ address: 0.0.0.0:9900 }}\nmemory: {{ max_size: 64 MiB }}\n"
                # Many cycles fail a drive more often than one may.
                f"storage:\n  mode: {'direct' if drives else 'file'}\n  flap_threshold: 1000\n"
                f"  drives:\n{media}"
            )

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.host.enter(), MEMKV, "start", "--config", self.config_path, "--log-file", "none"],
                stdout=log,
                stderr=log,
                env={**ENVIRONMENT, "MEMKV_AUTH_KEY": self.key},
                preexec_fn=die_with_the_caller,
            )

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for drive in self.drives:
            wait_until_given_back(drive)

    def stop(self):
        self.signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        expect(code == 0, f"{self.url} ended with {code}\n{self.log()}")
        for drive in self.drives:
            wait_until_given_back(drive)

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""


class Load:
    """The clients: see fleet_load.cpp."""

    def __init__(self, servers, key):
        self.servers, self.key = servers, key
        self.process = self.begin([each.address for each in servers])

    def begin(self, addresses):
        return subprocess.Popen(
            [LOAD, ",".join(addresses), str(SEED), str(KEYS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, "MEMKV_AUTH_KEY": self.key},
            preexec_fn=die_with_the_caller,
        )

    def order(self, *words, process=None):
        process = process or self.process
        process.stdin.write(" ".join(map(str, words)) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        expect(answer != "", f"the clients ended at {words}")
        return json.loads(answer)

    def trouble(self, servers=(), forgetful=()):
        self.order(
            "trouble", *(sum(1 << self.servers.index(each) for each in some) for some in (servers, forgetful))
        )

    def counts(self, when, busy=()):
        """Checks what happened; `busy` are servers that must have answered something."""
        counts = self.order("counts")
        self.check(counts, when)
        for each in busy:
            done, failed = (counts[what][self.servers.index(each)] for what in ("done", "failed"))
            expect(done > failed, f"{when}: {each.url} is well, and few calls succeed: {counts}")
        return counts

    @staticmethod
    def check(counts, when):
        expect(counts["wrong"] == 0, f"{when}: {counts['wrong']} problems: {counts['problems']}")
        slowest = counts["slowest_ms"]
        expect(slowest <= DEADLINE_MS + MARGIN_MS, f"{when}: a call took {slowest} ms")

    def verify(self, when):
        """Everything is there, but for what may be missed."""
        found = self.order("verify")
        self.check(found["counts"], when)
        expect(found["came"] == found["present"], f"{when}: {found}")
        return found

    def placement_of_another(self):
        """As clients see it that name the servers in another order."""
        other = list(self.servers)
        random.Random(SEED).shuffle(other)
        process = self.begin([each.address for each in other])
        places = self.order("placement", process=process)
        process.stdin.close()
        process.wait(timeout=10)
        return [self.servers.index(other[place]) for place in places]

    def close(self):
        self.process.kill()
        self.process.wait()


class Admin:
    """memkv admin for the whole fleet, from the host of the clients."""

    def __init__(self, servers, key):
        self.servers, self.key = servers, key

    def run(self, *words, servers=None, signed=True):
        begin = time.monotonic()
        environment = {**ENVIRONMENT, "MEMKV_SERVERS": ",".join(each.url for each in servers or self.servers)}
        if signed:
            environment["MEMKV_AUTH_KEY"] = self.key
        done = subprocess.run(
            [MEMKV, "admin", *words, "--timeout-ms", str(ADMIN_MS)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        seconds = time.monotonic() - begin
        said = f"memkv admin {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        expect(seconds < ADMIN_MS / 1000 + ADMIN_MARGIN_S, f"it took {seconds:.1f} s\n{said}")
        return done.returncode, done.stdout, done.stderr, said

    def look(self, absent=()):
        """Every question, with exactly these servers missing."""
        questions = [("health",), ("status",), ("drives", "failed")]
        if not absent:  # each of them costs the deadline when somebody is silent
            questions += [("ready",), ("status", "--verbose"), ("status", "--json")]
        for words in questions:
            code, out, err, said = self.run(*words)
            expect(code == (1 if absent else 0), said)
            for each in self.servers:
                expect(
                    (f"memkv: {each.url}: " in err) == (each in absent),
                    f"{each.url} is or is not missing\n{said}",
                )
                expect(each.url in out or each in absent, f"{each.url} is shown\n{said}")
            expect(len(err.splitlines()) == len(absent), said)
            answered = f"{SERVERS - len(absent)} of {SERVERS} answered"
            expect(
                words != ("status",) or answered in out.splitlines()[-1], f"the total says {answered}\n{said}"
            )

    def wait_until_well(self, seconds=30):
        end = time.monotonic() + seconds
        while True:
            code, out, _, said = self.run("health")
            if code == 0 and "degraded" not in out and "unhealthy" not in out:
                return
            expect(time.monotonic() < end, f"not well after {seconds} s\n{said}")
            time.sleep(0.1)

    def failed_drives(self):
        """Those that are not online, by server."""
        code, out, _, said = self.run("drives", "failed", "--json")
        expect(code == 0, said)
        parts, lists = out.splitlines(), {}
        for rule, document in zip(parts[::2], parts[1::2]):
            lists[rule.split()[1]] = json.loads(document)
        expect(list(lists) == [each.url for each in self.servers], said)
        return {
            url: [each["device_id"] for each in drives if each["state"] != "online"]
            for url, drives in lists.items()
        }


class Fleet:
    def __init__(self, folder):
        self.folder, self.key = folder, os.urandom(32).hex()
        self.loops, self.network, self.servers, self.load = Loops(folder, 96 << 20), None, [], None
        try:
            self.network = Network(SERVERS)
            for place, host in enumerate(self.network.hosts):
                drives = [self.loops.make(4096) for _ in range(3)] if place in RAW else []
                self.servers.append(Server(host, folder, self.key, drives))
            self.admin = Admin(self.servers, self.key)
            for each in self.servers:
                each.start()
            self.admin.wait_until_well()
            self.load = Load(self.servers, self.key)
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.load is not None:
            self.load.close()
        for device in list(self.loops.devices):
            set_size_limit(device, 0)
        try:
            for each in self.servers:
                each.kill()
        finally:
            self.loops.free_all()
            if self.network is not None:
                self.network.close()
                self.network = None

    def others(self, *absent):
        return [each for each in self.servers if each not in absent]

    def settle(self, when, placement, forgetful=()):
        """The fleet is back: everything is where it was, and everything is there.

        Blocks that changed while a drive of the `forgetful` was away may be missed; those that did not, not.
        """
        self.admin.wait_until_well()
        self.admin.look()
        # A client comes back to a server after its back-off, five seconds at most.
        end = time.monotonic() + 20
        while True:
            time.sleep(0.3)
            counts = self.load.counts(f"{when}, while clients come back")
            if all(done > 0 for done in counts["done"]) and counts["failed"] == [0] * SERVERS:
                break
            expect(time.monotonic() < end, f"{when}: clients did not come back: {counts}")
        self.load.trouble((), forgetful)
        time.sleep(0.5)
        self.load.counts(f"{when}, afterwards", self.servers)
        self.load.order("pause")
        found = self.load.verify(f"{when}, everything read")
        self.load.trouble()
        expect(self.load.order("placement") == placement, f"{when}: keys moved to other servers")
        self.load.order("run")
        return found


def a_fleet_that_is_well(fleet):
    fleet.load.order("run")
    fleet.admin.look()
    time.sleep(2)
    fleet.load.counts("while all is well", fleet.servers)
    expect(all(not drives for drives in fleet.admin.failed_drives().values()), "no drive has failed")


def one_is_killed(fleet, placement, victim):
    fleet.load.trouble([victim])
    victim.kill()
    fleet.admin.look([victim])
    time.sleep(1.5)
    counts = fleet.load.counts("while one is dead", fleet.others(victim))
    expect(
        counts["failed"][fleet.servers.index(victim)] > 0, f"the load does not notice a dead server: {counts}"
    )
    victim.start()
    fleet.settle("after a kill", placement)


def one_is_paused(fleet, placement, victim):
    fleet.load.trouble([victim])
    victim.signal(signal.SIGSTOP)
    fleet.admin.look([victim])
    time.sleep(1)
    counts = fleet.load.counts("while one is paused", fleet.others(victim))
    expect(counts["failed"][fleet.servers.index(victim)] > 0, f"the load does not notice a pause: {counts}")
    victim.signal(signal.SIGCONT)
    fleet.settle("after a pause", placement)


def one_is_cut_off(fleet, placement, victim):
    fleet.load.trouble([victim])
    victim.host.cut_off()
    fleet.admin.look([victim])
    time.sleep(1)
    counts = fleet.load.counts("while one is cut off", fleet.others(victim))
    expect(counts["failed"][fleet.servers.index(victim)] > 0, f"the load does not notice a cut: {counts}")
    victim.host.join()
    fleet.settle("after a cut", placement)


def drives_fail_on_two(fleet, placement, chance):
    victims = [fleet.servers[place] for place in RAW]
    lost = {each.url: chance.randrange(3) for each in victims}
    fleet.load.trouble(victims, victims)
    for each in victims:
        set_size_limit(each.drives[lost[each.url]], PAGE)
    wanted = {each.url: [lost[each.url]] if each in victims else [] for each in fleet.servers}
    end = time.monotonic() + 20
    while (failed := fleet.admin.failed_drives()) != wanted:
        expect(time.monotonic() < end, f"failed drives are {failed} and should be {wanted}")
        time.sleep(0.1)
    code, out, _, said = fleet.admin.run("health")
    expect(code == 0 and out.count("degraded") == 2 and out.count("2/3") == 2, said)
    code, out, _, said = fleet.admin.run("status", "--verbose")
    expect(code == 0 and out.count("offline") >= 2, said)
    fleet.load.counts("while drives fail", fleet.others(*victims))
    time.sleep(2)  # their keys go to the drives beside them
    fleet.load.counts("without two drives", fleet.servers)
    for each in victims:
        set_size_limit(each.drives[lost[each.url]], 0)
    fleet.settle("after the drives are back", placement, victims)


def resets_over_the_network(fleet):
    """From another host a reset must be signed; and a drive that is online is not reset."""
    server = fleet.servers[RAW[0]]
    code, _, err, said = fleet.admin.run("drives", "reset", "1", servers=[server], signed=False)
    expect(code == 1 and "HTTP 401" in err, said)
    code, _, err, said = fleet.admin.run("drives", "reset", "1", servers=[server])
    expect(code == 1 and "HTTP 409" in err, said)
    code, _, err, said = fleet.admin.run("drives", "reset", "7", servers=[server])
    expect(code == 1 and "HTTP 404" in err, said)
    code, _, err, said = fleet.admin.run("drives", "reset", "1")
    expect(code == 1 and "exactly one server" in err, said)


def a_drive_is_made_anew_from_afar(fleet):
    """What was on it is gone, so it cannot come back by itself; a signed reset brings it back, empty."""
    fleet.load.order("pause")
    server, place = fleet.servers[RAW[1]], 1
    drive = server.drives[place]
    fleet.load.trouble([server], [server])
    set_size_limit(drive, PAGE)
    fleet.load.order("run")  # somebody must ask the drive for something, else nobody notices
    wanted = {each.url: [place] if each is server else [] for each in fleet.servers}
    end = time.monotonic() + 20
    while fleet.admin.failed_drives() != wanted:
        expect(time.monotonic() < end, "the drive does not fail")
        time.sleep(0.1)
    fleet.load.order("pause")
    image = fleet.loops.image(drive)
    size = os.path.getsize(image)
    subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", str(size), image], check=True)
    set_size_limit(drive, 0)
    time.sleep(1)
    expect(fleet.admin.failed_drives() == wanted, "a wiped drive does not come back by itself")
    code, _, err, said = fleet.admin.run("drives", "reset", str(place), servers=[server], signed=False)
    expect(code == 1 and "HTTP 401" in err, said)
    code, out, _, said = fleet.admin.run("drives", "reset", str(place), "--secure", servers=[server])
    told = [f"drive {place} {what}" in out for what in ("is being reset", "was reset")]
    expect(code == 0 and any(told), said)
    fleet.admin.wait_until_well()
    code, out, _, said = fleet.admin.run("drives", "failed", "--json", servers=[server])
    expect(
        place not in [each["device_id"] for each in json.loads(out)], f"the reset clears the registry\n{said}"
    )
    code, out, _, said = fleet.admin.run("status", "--json", servers=[server])
    device = json.loads(out)["storage"]["devices"][place]
    expect(device["state"] == "online" and device["blocks"] == 0, f"the drive is empty\n{said}")


def all_are_restarted(fleet, placement):
    fleet.load.order("pause")
    for each in fleet.servers:
        each.signal(signal.SIGTERM)
    for each in fleet.servers:
        each.stop()
    fleet.admin.look(fleet.servers)
    for each in fleet.servers:
        each.start()
    fleet.load.trouble(fleet.servers)
    fleet.load.order("run")
    return fleet.settle("after a restart of all", placement)


def scenario(fleet, chance):
    load = fleet.load
    Load.check(load.order("fill"), "filling")
    placement = load.order("placement")
    expect(len(set(placement)) == SERVERS, "every server has keys")
    expect(load.placement_of_another() == placement, "the order of the list does not matter")
    fixed = chance.sample(range(0, KEYS, 4), 20)
    right = [[placement[key]] for key in fixed]
    expect(load.order("where", *fixed) == right, "a block is on its server, and on no other")

    def timed(what, *words):
        begin = time.monotonic()
        what(fleet, *words)
        print(f"{what.__name__}: {time.monotonic() - begin:.1f} s", flush=True)

    timed(a_fleet_that_is_well)
    for _ in range(CYCLES):
        for what in (one_is_killed, one_is_paused, one_is_cut_off):
            timed(what, placement, chance.choice(fleet.servers))
        timed(drives_fail_on_two, placement, chance)
    timed(resets_over_the_network)
    timed(all_are_restarted, placement)
    expect(load.order("where", *fixed) == right, "in the end blocks are where they were")
    timed(a_drive_is_made_anew_from_afar)
    load.order("pause")
    for each in fleet.servers:
        each.stop()


def run_in(folder):
    loops = Loops(folder, 1 << 20)
    try:
        Network(1).close()
        loops.free(loops.make(4096))
    except OSError as problem:
        print(f"fleet_test: skipped, networks or loop devices are not to be had here: {problem}")
        return SKIPPED
    finally:
        loops.free_all()
    fleet = Fleet(folder)
    atexit.register(fleet.close)
    try:
        scenario(fleet, random.Random(SEED))
    except (Wrong, OSError, subprocess.SubprocessError, ValueError):
        traceback.print_exc()
        for each in fleet.servers:
            ended = each.process.poll() if each.process is not None else "stopped by the test"
            state = "it runs" if ended is None else f"it ended: {ended}"
            print(f"the end of the log of {each.url} ({state}):", *each.log().splitlines()[-15:], sep="\n")
        print(f"fleet_test: failed (MEMKV_TEST_SEED={SEED})")
        return 1
    finally:
        fleet.close()
        atexit.unregister(fleet.close)
    print("fleet_test: passed")
    return 0


def inside():
    print(f"fleet_test: MEMKV_TEST_SEED={SEED}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # In memory, so that a disk that others use does not decide how long a call takes; in a namespace of
        # mounts, so that nobody else sees it.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g", "none", folder], check=True)
        try:
            return run_in(folder)
        finally:
            subprocess.run(["umount", folder], check=False)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that loop devices are given back
    if os.environ.get("MEMKV_TEST_INSIDE") == "1":
        return inside()
    if os.geteuid() != 0:
        print("fleet_test: skipped, needs root for network namespaces and loop devices")
        return SKIPPED
    for tool in ("ip", "nsenter", "losetup"):
        if (
            subprocess.run(["sh", "-c", f"command -v {tool}"], capture_output=True, check=False).returncode
            != 0
        ):
            print(f"fleet_test: skipped, {tool} is not installed")
            return SKIPPED
    if (
        subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode
        != 0
    ):
        print("fleet_test: skipped, network namespaces are not to be had here")
        return SKIPPED
    os.environ["MEMKV_TEST_INSIDE"] = "1"
    program = [sys.executable, os.path.abspath(__file__), MEMKV, LOAD]
    os.execvp("unshare", ["unshare", "--net", "--mount", *program])


if __name__ == "__main__":
    sys.exit(main())
