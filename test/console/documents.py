"""Status documents as docs/admin-api.md describes them, of servers that do not exist."""
import copy
import math
import random

BOUNDS = [8e-6 * 2 ** index for index in range(22)]


def spread(requests, middle_seconds, sigma=0.9):
    """Counts of the buckets for so many requests around a middle."""
    counts = []
    before = 0.0
    for bound in BOUNDS:
        share = 0.5 * (1 + math.erf(math.log(bound / middle_seconds) / (sigma * math.sqrt(2))))
        counts.append(share - before)
        before = share
    counts.append(1 - before)
    return [round(share * requests) for share in counts]


class Server:
    """A server at work. Every document is two seconds after the one before."""

    def __init__(self, drives=3, load=1.0, seed=7, uptime=187_000.0):
        self.random = random.Random(seed)
        self.drives = drives
        self.load = load
        self.uptime = uptime
        self.started_at = 1763720000 - int(uptime)
        self.step = 0
        self.totals = {}
        self.counts = {}
        self.used = [0.80 + 0.012 * (index % 9) for index in range(drives)]
        self.states = {}
        self.rails = 2
        self.rail_states = {}
        self.change = lambda document: None
        self.reads_total = 0

    def restart(self):
        """The process ends and another begins: everything counted begins at zero."""
        self.started_at += int(self.uptime) + 3
        self.uptime = 1.0
        self.totals.clear()
        self.counts.clear()

    def _rise(self, name, by):
        self.totals[name] = self.totals.get(name, 0) + int(by)
        return self.totals[name]

    def _buckets(self, name, requests, middle):
        # A few of them are slow, as they are.
        counts = self.counts.setdefault(name, [0] * (len(BOUNDS) + 1))
        for index, more in enumerate(spread(requests * 0.97, middle, 0.5)):
            counts[index] += more
        for index, more in enumerate(spread(requests * 0.03, middle * 8, 0.5)):
            counts[index] += more
        return list(counts)

    def _drive(self, index, reads, writes):
        state = self.states.get(index, {"state": "online"})
        media = f"/dev/nvme{index}n1"
        drive = {"device_id": index, "media": media, "model": "SAMSUNG MZWLO7T6HBLA-00A07", "reason": "",
                 "member": True, "failure_count": 0, "first_failed_at": 0, "last_failed_at": 0,
                 "blacklisted": state["state"] == "blacklisted"}
        drive.update(state)
        if drive["state"] not in ("online", "joining"):
            return drive
        raw = 7_681_501_126_656
        usable = raw - 40 * 2 ** 30
        lane = f"drive-{index}"
        slow = state.get("slow", 1)
        drive.update({
            "raw_bytes": raw, "usable_bytes": usable, "used_bytes": int(usable * self.used[index]),
            "blocks": int(usable * self.used[index] / 2 ** 22),
            "io": {"reads": self._rise(lane + "r", reads * 4),
                   "read_bytes": self._rise(lane + "rb", reads * 4 * 2 ** 20),
                   "writes": self._rise(lane + "w", writes * 4),
                   "written_bytes": self._rise(lane + "wb", writes * 4 * 2 ** 20),
                   "flushes": self._rise(lane + "f", writes / 4), "errors": 0, "slow": 0,
                   "slowest_seconds": 0.041, "depth_most": 64, "in_flight": min(64, int(reads / 60)),
                   "oldest_seconds": 0.0004},
            "latency": [
                {"operation": "read", "counts": self._buckets(lane + "r", reads * 4, 0.0004 * slow),
                 "sum_seconds": 1.0},
                {"operation": "write", "counts": self._buckets(lane + "w", writes * 4, 0.0002 * slow),
                 "sum_seconds": 1.0},
                {"operation": "flush", "counts": self._buckets(lane + "f", writes / 4, 0.00009 * slow),
                 "sum_seconds": 1.0}],
            "journal": {"bytes": 2 ** 30, "used_bytes": 2 ** 28, "records": 100, "batches": 10,
                        "checkpoints": 2},
            "trim": {"supported": True, "waiting_bytes": 2 ** 27, "submitted_bytes": 2 ** 33,
                     "trimmed_bytes": 2 ** 33},
            "recovery": {"seconds": 0.8, "blocks": 1_500_000, "replayed_records": 220, "dropped": 0,
                         "damaged": 0},
            "evicted_blocks": 0, "evicted_bytes": 0, "corrupt_blocks": 0, "io_errors": 0,
            "memory_bytes": 2 ** 28})
        drive.pop("slow", None)
        return drive

    def _rail(self, index, writes, reads, block):
        state = self.rail_states.get(index, {"state": "online", "reason": ""})
        name = f"rail-{index}"
        writes, reads = (writes, reads) if state["state"] == "online" else (0, 0)
        rail = {"rail": index, "device": f"mlx5_{index}", **state,
                "sessions_attached": 9, "sessions_broken": 1,
                "fetched": self._rise(name + "f", writes * 4),
                "fetched_bytes": self._rise(name + "fb", writes * block),
                "placed": self._rise(name + "p", reads * 4),
                "placed_bytes": self._rise(name + "pb", reads * block),
                "not_done": {"unavailable": 0, "memory_refused": 0, "deadline_exceeded": 0,
                             "session_ended": 0, "internal": 0},
                "doorbells": self._rise(name + "d", writes + reads), "queue_pairs_rebuilt": 0,
                "queue_pairs_destroyed": 0, "errors": {"retry_exceeded": 1}}
        if state["state"] == "online":
            rail.update(transports=["rc"], sessions=8, connections=8, queue_pairs=8, transfers_queued=0,
                        transfers_posted=3, reachable_bytes=64 * 2 ** 30)
        return rail

    def _rdma(self, writes, reads, block):
        if self.rails == 0:
            return {"active": False, "connections": 0, "sessions": 0, "rails": []}
        rails = [self._rail(index, writes / self.rails, reads / self.rails, block)
                 for index in range(self.rails)]
        sessions = sum(rail.get("sessions", 0) for rail in rails)
        return {"active": any(rail["state"] == "online" for rail in rails), "connections": sessions,
                "sessions": sessions, "rails": rails}

    def document(self):
        self.step += 1
        self.uptime += 2.0
        wave = 1 + 0.35 * math.sin(self.step / 23) + 0.15 * self.random.uniform(-1, 1)
        burst = 1.0 if math.sin(self.step / 41) > 0.2 else 0.45
        reads = 2 * 420 * wave * self.load * self.drives
        writes = 2 * 110 * wave * burst * self.load * self.drives
        misses = reads * (0.09 + 0.03 * math.sin(self.step / 31))
        block = 4 * 2 ** 20
        slower = 1 + 0.8 * max(0, math.sin(self.step / 17)) ** 6
        online = [index for index in range(self.drives)
                  if self.states.get(index, {"state": "online"})["state"] == "online"]
        share = max(1, len(online))
        devices = [self._drive(index, reads / share, writes / share) for index in range(self.drives)]
        usable = sum(drive.get("usable_bytes", 0) for drive in devices)
        used = sum(drive.get("used_bytes", 0) for drive in devices)
        series = []
        for operation, requests, times in [
                ("get", reads, {"queue": 3e-5, "drive": 6e-4 * slower, "network": 3e-4,
                                "total": 1.0e-3 * slower}),
                ("put", writes, {"queue": 5e-5, "drive": 4e-4, "network": 6e-4, "total": 1.2e-3 * slower}),
                ("exists", reads * 2, {"queue": 9e-6, "total": 2e-5}),
                ("delete", 0, {"queue": 9e-6, "total": 2e-5})]:
            for stage, middle in times.items():
                name = f"{operation} {stage}"
                series.append({"operation": operation, "stage": stage, "sum_seconds": 1.0,
                               "counts": self._buckets(name, requests, middle)})
        actors = [{"name": name, "alive": True, "answered": True,
                   "answered_in_seconds": 2e-5 * (1 + place % 5), "mailbox": 0, "restarts": 0}
                  for place, name in enumerate(
                      ["admin-gateway", *[f"dci-pool-{index}" for index in range(self.rails)],
                       *[f"drive-{index}" for index in range(self.drives)], "evictor",
                       "license-watcher", "listener", "reactor-0", "reactor-1", "server", "trim-batcher"])]
        evicted = self._rise("evicted", writes * 0.95)
        document = {
            "status": "healthy", "reasons": [], "version": "2025-11-20T09-00-00Z",
            "server_id": "0f0e0d0c0b0a09080706050403020100", "phase": "serving",
            "address": "10.0.7.21:9900", "time": self.started_at + self.uptime,
            "started_at": self.started_at, "uptime_seconds": self.uptime, "fault_injection": False,
            "license": {"valid": True, "plan": "Enterprise", "organization": "Example Inference Ltd",
                        "source": "MEMKV_LICENSE", "expires_at": self.started_at + 300 * 86400,
                        "days_left": 298, "development": False},
            "memory": {"pool_bytes": 64 * 2 ** 30, "pool_used_bytes": int(wave * self.load * 11 * 2 ** 30),
                       "pool_used_bytes_most": 31 * 2 ** 30, "chunk_bytes": 2 * 2 ** 20,
                       "huge_pages": True, "refused": 0, "requests_waiting": 0,
                       "resident_bytes": 71 * 2 ** 30,
                       "cache": {"hits": self._rise("hits", reads * 0.31),
                                 "misses": self._rise("cache misses", reads * 0.69),
                                 "hit_bytes": self._rise("hit bytes", reads * 0.31 * block),
                                 "bytes": 21 * 2 ** 30, "dropped_segments": 812}},
            "storage": {"mode": "direct", "block_size": block, "shard_size": 65536,
                        "raw_bytes_total": sum(drive.get("raw_bytes", 0) for drive in devices),
                        "usable_bytes_total": usable, "used_bytes_total": used,
                        "blocks_total": used // block, "drives_online": len(online),
                        "drives_offline": self.drives - len(online), "drives_total": self.drives,
                        "devices": devices},
            "eviction": {"enabled": True, "high_watermark": 0.95, "low_watermark": 0.9,
                         "evicted_blocks": evicted, "evicted_bytes": evicted * block,
                         "oldest_age_seconds": 8124},
            "rdma": self._rdma(writes, reads, block),
            "network": {"connections": 128, "unauthenticated": 0, "connections_max": 16384,
                        "accepted": 1500, "refused": 0, "requests_open": int(wave * 40 * self.load),
                        "held_bytes": int(wave * self.load * 2 ** 29),
                        "closed": {"peer_closed": 1370, "idle": 2}},
            "requests": {"reads": self._rise("reads", reads - misses),
                         "read_bytes": self._rise("read bytes", (reads - misses) * block),
                         "read_misses": self._rise("misses", misses),
                         "writes": self._rise("writes", writes),
                         "write_bytes": self._rise("write bytes", writes * block),
                         "write_failures": 0, "deletes": 0, "exists_keys": self._rise("exists", reads * 2),
                         "prefixes": 0, "frames": self._rise("frames", reads * 3 + writes),
                         "digest_mismatches": 0, "corrupt_blocks": 0, "incomplete_blocks": 0,
                         "deadlines_exceeded": 0, "busy": 0,
                         "dropped_stale": 0, "dropped_replayed": 0},
            "latency": {"bounds_seconds": BOUNDS, "series": series},
            "actors": actors,
            "log": {"error": 0, "warn": 1, "info": 12, "lost": 0},
        }
        self.change(document)
        return copy.deepcopy(document)


def healthy(drives=3):
    return Server(drives)


FAILED = {
    1: {"state": "offline", "failure_count": 1, "first_failed_at": 1763719200, "last_failed_at": 1763719200,
        "reason": "a write or flush failed on /dev/nvme1n1: Input/output error; it is tried again in 40 s"},
    2: {"state": "blacklisted", "failure_count": 5, "first_failed_at": 1763610000,
        "last_failed_at": 1763712000, "reason": "it failed 5 times"},
}


def degraded(drives=4):
    """Two drives failed, a third is being emptied, an actor was started anew."""
    server = Server(drives)
    server.states = dict(FAILED)
    server.states[3] = {"state": "resetting", "failure_count": 2, "first_failed_at": 1763710000,
                        "last_failed_at": 1763711000, "reason": "",
                        "reset": {"secure": True, "done_bytes": 3 * 2 ** 40, "total_bytes": 7 * 2 ** 40}}

    def change(document):
        document["status"] = "degraded"
        document["reasons"] = ["drive 1 (/dev/nvme1n1) is offline: a write or flush failed on /dev/nvme1n1",
                               "drive 2 (/dev/nvme2n1) is blacklisted",
                               "drive 3 (/dev/nvme3n1) is resetting"]
        document["log"]["error"] = 7 if server.step > 2 else 2
        document["license"]["days_left"] = 6
        document["license"]["expires_at"] = document["time"] + 6.5 * 86400
        for actor in document["actors"]:
            if actor["name"] == "drive-2":
                actor["alive"] = False
            if actor["name"] == "reactor-1":
                actor["restarts"] = 3 if server.step > 2 else 1
    server.change = change
    return server


def many(drives=24):
    """Twenty-four drives, of which one failed and one is slow."""
    server = Server(drives, load=0.4)
    server.states = {17: {**FAILED[1], "reason": "a read failed on /dev/nvme17n1: Input/output error"},
                     5: {"state": "online", "slow": 30}}

    def change(document):
        document["status"] = "degraded"
        document["reasons"] = ["drive 17 (/dev/nvme17n1) is offline: a read failed on /dev/nvme17n1"]
    server.change = change
    return server


def unhealthy():
    """No drive is online."""
    server = Server(2, load=0)
    server.states = {0: {**FAILED[1], "reason": "/dev/nvme0n1 cannot be opened: No such device"},
                     1: {"state": "opening"}}

    def change(document):
        document["error"] = "no drive is online"
        document["status"] = "unhealthy"
        document["reasons"] = ["no drive is online", "drive 0 (/dev/nvme0n1) is offline: /dev/nvme0n1 cannot "
                               "be opened: No such device", "drive 1 (/dev/nvme1n1) is opening"]
    server.change = change
    return server


def stuck():
    """DRIVE 1 does not answer: what only it knows is missing."""
    server = Server(3)

    def change(document):
        document["error"] = "no answer in time from drive-1: it is stuck or overloaded"
        document["silent"] = ["drive-1"]
        document["status"] = "unhealthy"
        document["reasons"] = ["the actor drive-1 has not answered in time"]
        drive = document["storage"]["devices"][1]
        for name in list(drive):
            if name not in ("device_id", "media", "state", "reason", "member", "failure_count",
                            "first_failed_at", "last_failed_at", "blacklisted"):
                del drive[name]
        for actor in document["actors"]:
            if actor["name"] == "drive-1":
                actor.update(answered=False, answered_in_seconds=0)
    server.change = change
    return server


def idle():
    """One empty drive, and nobody asks for anything."""
    server = Server(1, load=0, uptime=40.0)
    server.used = [0.0]
    server.rails = 0

    def change(document):
        document["memory"]["pool_used_bytes"] = 0
        document["memory"]["cache"] = {"hits": 0, "misses": 0, "hit_bytes": 0, "bytes": 0,
                                       "dropped_segments": 0}
        document["eviction"].update(evicted_blocks=0, evicted_bytes=0, oldest_age_seconds=0)
        document["network"].update(connections=0, accepted=0, requests_open=0, held_bytes=0, closed={})
        document["license"].update(plan="Enterprise", development=True, source="deploy/license")
    server.change = change
    return server


def without_rdma():
    """All drives are online, and both RDMA devices are away; the second one is tried at this moment."""
    server = Server(3)
    why = ("There is no RDMA device mlx5_0; this machine has rocep1s0f0, rocep1s0f1, rocep2s0f0, rocep2s0f1 "
           "and mlx5_bond_with_a_long_name.")
    server.rail_states = {0: {"state": "offline", "reason": why}, 1: {"state": "opening", "reason": ""}}

    def change(document):
        document["status"] = "degraded"
        document["reasons"] = [f"the RDMA device mlx5_0 is not in use: {why}"]
        document["actors"] = [actor for actor in document["actors"] if actor["name"] != "dci-pool-0"]
    server.change = change
    return server


ATTACK = "<img src=x onerror=\"window.broken=1\"><script>window.broken=2</script>"


def hostile():
    """Names that try to be more than names, and figures that are none."""
    server = Server(2)
    server.states = {1: {**FAILED[1], "reason": ATTACK}}

    def change(document):
        document["status"] = "degraded"
        document["reasons"] = [ATTACK, "__proto__", 17, None]
        document["version"] = ATTACK
        document["address"] = "javascript:alert(1)" + ATTACK
        document["license"]["organization"] = ATTACK * 20
        document["license"]["plan"] = "constructor"
        document["network"]["closed"] = {ATTACK: 3, "__proto__": 4, "constructor": "many"}
        document["latency"]["series"] += [
            {"operation": ATTACK, "stage": "total", "counts": [1, 2], "sum_seconds": 1},
            {"operation": "__proto__", "stage": "constructor", "counts": "none", "sum_seconds": None}, 5,
            None]
        document["rdma"]["rails"] += [
            {"rail": 0, "device": ATTACK, "state": ATTACK, "reason": ATTACK * 20}, None, 7, "rail",
            {"rail": "__proto__", "device": None, "state": "online", "sessions": "many",
             "placed_bytes": -1}]
        devices = document["storage"]["devices"]
        devices[0]["media"] = "/dev/" + ATTACK
        devices[0]["model"] = "\u202egnp.exe" + "x" * 5000
        devices[0]["state"] = "constructor"
        devices[0]["used_bytes"] = "1e999"
        devices[1]["media"] = "javascript:alert(1)"
        devices += [None, "drive", {"device_id": "toString", "state": ATTACK, "io": 7, "latency": {}}]
        document["actors"] += [{"name": ATTACK, "alive": True, "answered": True, "restarts": -1,
                                "mailbox": "none", "answered_in_seconds": -5}, None, 8]
    server.change = change
    return server
