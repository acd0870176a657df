"""memkv doctor on loop devices, healthy and sick, and against running servers.

doctor_test.py MEMKV SHIFTED_CLOCK    needs root and loop devices; exits with 77 where there are none

SHIFTED_CLOCK is the library that lets a server see another time. Everything runs in namespaces of its own,
so that no mount is left behind and nobody else takes a port.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from loop_drives import PAGE, Loops, wait_until_given_back
from raw_server import free_port

from development_license import environment as licensed

MEMKV, SHIFTED_CLOCK = (os.path.abspath(name) for name in sys.argv[1:3])
SKIPPED = 77
KEY = os.urandom(32).hex()
ENVIRONMENT = licensed(MEMKV)
ENVIRONMENT.pop("NO_COLOR", None)
LIBC = ctypes.CDLL(None, use_errno=True)


def expect(condition, what, detail=""):
    if not condition:
        sys.exit(f"doctor_test: {what}\n{detail}")


def doctor(config, *words, key=KEY, environment=(), before=None):
    """The exit code and what was printed. `before` runs in the child before the program."""
    done = subprocess.run(
        [MEMKV, "doctor", "--config", config, "--log-file", "none", *words],
        capture_output=True,
        timeout=60,
        check=False,
        env={**ENVIRONMENT, "MEMKV_AUTH_KEY": key, **dict(environment)},
        preexec_fn=before,
    )
    said = done.stderr.decode()
    expect(
        said == "" if done.returncode == 0 else re.fullmatch(r"memkv: \d+ checks? failed: [^\n]+\n", said),
        "one sentence on standard error, of a failure alone",
        said,
    )
    return done.returncode, done.stdout.decode()


class Report:
    def __init__(self, config, *words, **more):
        self.code, self.text = doctor(config, "--json", *words, **more)
        self.document = json.loads(self.text)
        states = [each["state"] for each in self.document["checks"]]
        for state in ("ok", "warning", "failed", "skipped"):
            count = self.document["warnings" if state == "warning" else state]
            expect(count == states.count(state), f"the count of {state} is wrong", self.text)
        expect(self.code == (1 if "failed" in states else 0), "the exit code is another", self.text)
        expect(self.document["healthy"] == (self.code == 0), "healthy is not the exit code", self.text)

    def has(self, check, state, subject="", says=""):
        """There is such a finding; its text."""
        found = [
            each
            for each in self.document["checks"]
            if each["check"] == check and subject in each["subject"] and each["state"] == state
        ]
        texts = [f"{each['found']}: {each['remedy']}" for each in found]
        fits = [text for text in texts if says in text]
        expect(fits, f'{check} {subject} is not {state} with "{says}"', self.text)
        return fits[0]


def only_failure(report, check, subject, says):
    report.has(check, "failed", subject, says)
    expect(report.code == 1, "a failure is an exit code of 1", report.text)
    failed = [each["check"] for each in report.document["checks"] if each["state"] == "failed"]
    expect(failed == [check], f"nothing but {check} fails", report.text)


def write_config(folder, port, drives, extra=""):
    path = os.path.join(folder, f"config{len(os.listdir(folder))}.yaml")
    with open(path, "w", encoding="ascii") as file:
        file.write(
            f'network: {{ address: "127.0.0.1:{port}"{extra} }}\nmemory: {{ max_size: 32 MiB }}\n'
            "storage:\n  mode: direct\n  drives:\n"
        )
        file.writelines(f"    - media: {device}\n" for device in drives)
    return path


def digest(device):
    hashed = hashlib.sha256()
    with open(device, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def set_up(*drives):
    done = subprocess.run(
        [MEMKV, "setup", "--force", "--drives", *drives], capture_output=True, timeout=60, check=False
    )
    expect(done.returncode == 0, "setup failed", done.stderr.decode())


def healthy_set(folder, drives):
    config = write_config(folder, free_port(), drives)
    before = [digest(device) for device in drives]
    report = Report(config)
    expect(report.code == 0, "a healthy set fails nothing", report.text)
    for device in drives:
        report.has("drive.read", "ok", device, "O_DIRECT")
        depth = report.has("drive.depth", "ok", device, "reached 64 of 64")
        numbers = re.search(r"[1-9]\d* reads of 4 KiB a second, median \d", depth)
        expect(numbers, "the probe has numbers", depth)
        report.has("drive.superblock", "ok", device, "of set")
        report.has("drive.discard", "ok", device)
    report.has("drive.set", "ok", says="2 of 2 drives")
    report.has("io_uring", "ok")
    report.has("port.data", "ok", says="free")
    report.has("clock.peer", "skipped")
    report.has("license", "ok", "MEMKV_LICENSE", says=", until 2")
    broken = Report(config, environment={"MEMKV_LICENSE": "/nonexistent/license"})
    expect(broken.code == 1, "a licence that cannot be read is a failure", broken.text)
    broken.has("license", "failed", "MEMKV_LICENSE", "cannot be read")
    expect([digest(device) for device in drives] == before, "doctor wrote to a drive")
    for device in drives:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))  # given back

    code, table = doctor(config)
    lines = table.splitlines()
    expect(code == 0 and "\033" not in table, "a table without colour comes through a pipe", table)
    expect(len(lines) == len(report.document["checks"]) + 1, "it has one line a check", table)
    columns = {line.index(each["found"][:12]) for line, each in zip(lines, report.document["checks"])}
    expect(len(columns) == 1, f"it is aligned: {columns}", table)


def colours(folder, drives):
    config = write_config(folder, free_port(), drives)
    for variables, wanted in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [MEMKV, "doctor", "--config", config],
            stdout=slave,
            env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY, **variables},
        )
        os.close(slave)
        seen = b""
        while select.select([master], [], [], 30)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        os.close(master)
        expect(process.wait(timeout=30) == 0, "doctor at a terminal", seen)
        expect((b"\033[32mok" in seen) == wanted, f"colours with {variables}", seen)


def sick_drives(folder, drives, loops):
    port = free_port()
    first, second = drives
    missing = Report(write_config(folder, port, [first, "/dev/nowhere"]))
    missing.has("drive", "failed", "/dev/nowhere", "does not exist")
    missing.has("drive.superblock", "ok", first)
    expect(missing.code == 1, "a missing drive is a failure")

    swapped = Report(write_config(folder, port, [second, first]))
    swapped.has("drive.set", "failed", second, "names it as drive 0 of 2")

    other = [loops.make(512) for _ in range(2)]
    set_up(*other)
    foreign = Report(write_config(folder, port, [first, other[1]]))
    foreign.has("drive.set", "failed", says="belongs to set")

    blank = loops.make(512)
    only_failure(Report(write_config(folder, port, [blank])), "drive.superblock", blank, "memkv setup")

    subprocess.run(["mkfs.ext4", "-q", blank], check=True)
    point = os.path.join(folder, "mounted")
    os.mkdir(point)
    only_failure(Report(write_config(folder, port, [blank])), "drive.superblock", blank, "ext4 file system")
    subprocess.run(["mount", "-o", "ro,noload", blank, point], check=True)
    try:
        only_failure(Report(write_config(folder, port, [blank])), "drive", blank, f"is mounted on {point}")
    finally:
        subprocess.run(["umount", point], check=True)
        os.rmdir(point)

    held = os.open(first, os.O_RDONLY | os.O_EXCL)
    report = Report(write_config(folder, port, drives))
    report.has("drive.read", "failed", first, f"(pid {os.getpid()})")
    report.has("drive.read", "ok", second)
    os.close(held)

    read_only = loops.attach(loops.image(other[0]), 512, "--read-only")
    report = Report(write_config(folder, port, [read_only]))
    report.has("drive", "failed", read_only, "blockdev --setrw")
    loops.detach(read_only)

    done = subprocess.run([MEMKV, "setup", "--force", "--drives", *other], capture_output=True, check=False)
    expect(done.returncode == 0, "setup failed", done.stderr.decode())
    blacklist(other[1])
    only_failure(Report(write_config(folder, port, other)), "drive.superblock", other[1], "memkv drive reset")
    for device in [*other, blank]:
        loops.free(device)


def crc32c(content):
    sum_ = 0xFFFFFFFF
    for byte in content:
        sum_ ^= byte
        for _ in range(8):
            sum_ = sum_ >> 1 ^ (0x82F63B78 if sum_ & 1 else 0)
    return sum_ ^ 0xFFFFFFFF


def blacklist(device):
    """The failure registry of docs/formats/superblock.md after nine failures, in both superblocks."""
    failures = bytes([1, 1, 4, 0]) + (9).to_bytes(4, "little") + (1_738_800_000 * 10**9).to_bytes(8, "little")
    failures += (1_738_810_000 * 10**9).to_bytes(8, "little") + b"S-17".ljust(128, b"\0")
    with open(device, "r+b", buffering=0) as file:
        for place in (0, file.seek(0, os.SEEK_END) - PAGE):
            file.seek(place)
            page = bytearray(file.read(PAGE))
            page[256 : 256 + len(failures)] = failures
            page[12:16] = bytes(4)
            page[12:16] = crc32c(page).to_bytes(4, "little")
            file.seek(place)
            file.write(page)
        os.fsync(file.fileno())


def sick_machines(folder, drives):
    port = free_port()
    config = write_config(folder, port, drives)
    with socket.create_server(("127.0.0.1", port)):
        only_failure(Report(config), "port.data", str(port), f"(pid {os.getpid()})")
    with socket.create_server(("127.0.0.1", port + 1)):
        only_failure(Report(config), "port.admin", str(port + 1), "held by")

    def as_an_old_kernel():
        uname26 = 0x0020000
        LIBC.personality(uname26)

    only_failure(Report(config, before=as_an_old_kernel), "kernel", "", "boot a newer kernel")

    def without_rings():
        # A filter that answers io_uring_setup, number 425 everywhere, with EPERM and allows everything else.
        allow, refuse = 0x7FFF0000, 0x00050001
        program = b"".join(
            struct.pack("<HBBI", *each)
            for each in [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, refuse), (0x06, 0, 0, allow)]
        )
        buffer = ctypes.create_string_buffer(program)
        filter_ = struct.pack("<HxxxxxxQ", 4, ctypes.addressof(buffer))
        no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
        LIBC.prctl(no_new_privileges, 1, 0, 0, 0)
        if LIBC.prctl(set_seccomp, mode_filter, ctypes.c_char_p(filter_), 0, 0) != 0:
            os._exit(99)

    report = Report(config, before=without_rings)
    report.has("io_uring", "failed", says="seccomp")
    report.has("drive.read", "failed", drives[0], "io_uring")

    # A file that another user has made, where root may not be asked for.
    with tempfile.TemporaryDirectory(prefix="memkv-other-") as open_folder:
        os.chmod(open_folder, 0o755)
        file_drive = os.path.join(open_folder, "drive")
        with open(file_drive, "wb") as file:
            file.truncate(64 << 20)
        os.chmod(file_drive, 0o600)
        of_file = os.path.join(open_folder, "config.yaml")
        with open(of_file, "w", encoding="ascii") as file:
            file.write(
                f'network: {{ address: "127.0.0.1:{free_port()}" }}\nmemory: {{ max_size: 16 MiB }}\n'
                f"storage: {{ mode: file, drives: [{{ media: {file_drive}, max_size: 64 MiB }}] }}\n"
            )
        report = Report(of_file, before=lambda: os.setresuid(65534, 65534, 65534))
        report.has("drive.read", "failed", file_drive, "let this user read and write it")

    weak = Report(config, key="0123456789abcdef" * 3 + "0123456789abcdee")
    weak.has("auth_key", "warning", says="different bytes")

    code, text = doctor(os.path.join(folder, "none.yaml"))
    expect(code == 1 and "cannot be opened" in text, "an unreadable configuration is a failure", text)
    broken = os.path.join(folder, "broken.yaml")
    with open(broken, "w", encoding="ascii") as file:
        file.write("storage: { mode: dierct }\n")
    report = Report(broken)
    report.has("config", "failed", says="line 1: storage.mode must be")
    report.has("kernel", "ok")
    code, _ = doctor(config, key="00" * 32)
    expect(code == 1, "a key that repeats itself is refused")


def certificates(folder, drives):
    for name in ("a", "b"):
        done = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            + ["-days", "100", "-subj", f"/CN={name}"]
            + ["-out", f"{folder}/{name}.cert", "-keyout", f"{folder}/{name}.key"],
            capture_output=True,
            check=False,
        )
        expect(done.returncode == 0, "openssl failed", done.stderr.decode())
        os.chmod(f"{folder}/{name}.key", 0o600)

    def pair(cert, key):
        names = f', tls_cert: "{folder}/{cert}", tls_key: "{folder}/{key}"'
        return Report(write_config(folder, free_port(), drives, names))

    good = pair("a.cert", "a.key")
    good.has("tls", "ok", says="/CN=a")
    expect(good.code == 0, "a pair that matches is fine", good.text)
    only_failure(pair("a.cert", "b.key"), "tls", "", "is not the key of the certificate")
    only_failure(pair("a.key", "a.key"), "tls", "", "holds no certificate")
    os.chmod(f"{folder}/a.key", 0o644)
    pair("a.cert", "a.key").has("tls", "warning", says="chmod 600")


def stuck_path(folder):
    """A file system whose server never answers: whoever looks at it waits until it is gone."""
    point = os.path.join(folder, "stuck")
    os.mkdir(point)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as problem:
        print(f"doctor_test: without a path that hangs, /dev/fuse: {problem.strerror}")
        return
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if LIBC.mount(b"nobody", point.encode(), b"fuse", 0, options) != 0:
        print(f"doctor_test: without a path that hangs, mount: {os.strerror(ctypes.get_errno())}")
        os.close(server)
        return
    try:
        config = os.path.join(folder, "stuck.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write(
                f'network: {{ address: "127.0.0.1:{free_port()}" }}\nmemory: {{ max_size: 32 MiB }}\n'
                f"storage: {{ mode: file, drives: [{{ media: {point}/d0, max_size: 64 MiB }}, "
                f"{{ media: {folder}/d1, max_size: 64 MiB }}] }}\n"
            )
        report = Report(config)
        only_failure(report, "drive", f"{point}/d0", "does not answer")
        report.has("drive", "ok", f"{folder}/d1", "will be made")
    finally:
        os.close(server)  # who still waits is told that nobody is there
        LIBC.umount2(point.encode(), 2)


@contextlib.contextmanager
def serving(config, port, shift_s=0, drives=()):
    """A server whose wall clock is `shift_s` ahead; its log."""
    log_path = config + ".log"
    shifted = {"LD_PRELOAD": SHIFTED_CLOCK, "MEMKV_TEST_CLOCK_SHIFT_S": str(shift_s)} if shift_s else {}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [MEMKV, "start", "--config", config, "--log-file", "none"],
            stdout=subprocess.PIPE,
            stderr=log,
            # A sanitizer wants to be loaded first, and need not be.
            env={**ENVIRONMENT, "MEMKV_AUTH_KEY": KEY, "ASAN_OPTIONS": "verify_asan_link_order=0", **shifted},
        )
    try:
        line = process.stdout.readline()
        with open(log_path, encoding="utf-8") as file:
            text = file.read()
        served = line.startswith(b"memkv: serving on") and str(port).encode() in line
        expect(served, "the server serves", text)
        yield text
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
        for device in drives:
            wait_until_given_back(device)


def clocks(folder, drives):
    port = free_port()
    config = os.path.join(folder, "memory.yaml")
    own = write_config(folder, free_port(), drives)
    with open(config, "w", encoding="ascii") as file:
        file.write(
            f'network: {{ address: "127.0.0.1:{port}" }}\nmemory: {{ max_size: 32 MiB }}\n'
            "storage: { mode: memory, drives: [{ media: memory, max_size: 16 MiB }] }\n"
        )
    server = f"127.0.0.1:{port}"
    with serving(config, port):
        report = Report(own, "--servers", f"{server},127.0.0.1:1")
        report.has("clock.peer", "ok", server, "its clock is 0.0")
        report.has("clock.peer", "skipped", "127.0.0.1:1", "Connection refused")
        expect(report.code == 0, "all is well", report.text)
        report = Report(own, environment={"MEMKV_SERVERS": f"http://127.0.0.1:{port + 1}"})
        report.has("clock.peer", "ok", f"http://127.0.0.1:{port + 1}")
        stranger = Report(own, "-s", server, key=os.urandom(32).hex())
        only_failure(stranger, "clock.peer", server, "authentication key")
    for shift, state, says in (
        (20, "warning", "ahead"),
        (-90, "failed", "behind"),
        (7200, "failed", "ahead"),
    ):
        with serving(config, port, shift):
            report = Report(own, "--servers", server)
            text = report.has("clock.peer", state, server, "its clock is")
            measured = float(re.search(r"is ([\d.]+) s (ahead|behind)", text)[1])
            right = abs(measured - abs(shift)) < 2 and says in text
            expect(right, f"a shift of {shift} s is measured", text)


def running_server(folder, drives):
    port = free_port()
    config = write_config(folder, port, drives)
    with serving(config, port, drives=drives) as log:
        line = re.search(r"INFO memkv::doctor: checked the machine; .* ok=\d+ warnings=\d+ failed=0", log)
        expect(line, "the start reports what it checked", log)
        report = Report(config, "--servers", f"127.0.0.1:{port}")
        report.has("port.data", "ok", str(port), "held by the server of this configuration")
        for device in drives:
            report.has("drive.read", "skipped", device, "stop it to probe")
        report.has("clock.peer", "ok", f":{port}")
        expect(report.code == 0, "beside its own server all is well", report.text)
        # Another configuration with the same port and drives is another matter.
        with open(config, encoding="ascii") as file:
            text = file.read()
        other = os.path.join(folder, "other.yaml")
        with open(other, "w", encoding="ascii") as file:
            file.write(text)
        report = Report(other)
        report.has("port.data", "failed", str(port), "held by memkv")
        report.has("drive.read", "failed", drives[0], "in use by memkv")


def a_start_warns(folder):
    """What is not as it should be is in the log, with the remedy, and the server starts all the same."""
    port = free_port()
    config = os.path.join(folder, "warned.yaml")
    with open(config, "w", encoding="ascii") as file:
        file.write(
            f'network: {{ address: "127.0.0.1:{port}" }}\nrdma: {{ device: mlx5_77, traffic_class: 26 }}\n'
            "memory: { max_size: 32 MiB }\n"
            "storage: { mode: memory, drives: [{ media: memory, max_size: 16 MiB }] }\n"
        )
    with serving(config, port) as log:
        expect("WARN memkv::doctor: rdma.device mlx5_77: " in log, "the device that is not there", log)
        expect("WARN memkv::doctor: rdma.traffic_class: " in log, "the value that is odd", log)
        expect("such as 104 for 26" in log, "and what to do about it", log)
        expect(log.count("WARN memkv::doctor: rdma.traffic_class: ") == 1, "said once", log)


def inside():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        loops = Loops(folder, 64 << 20)
        stack.callback(loops.free_all)
        drives = [loops.make(512), loops.make(4096)]
        set_up(*drives)
        configs = os.path.join(folder, "configs")
        os.mkdir(configs)
        for case, *more in (
            (healthy_set, drives),
            (colours, drives),
            (sick_drives, drives, loops),
            (sick_machines, drives),
            (certificates, drives),
            (clocks, drives),
            (running_server, drives),
            (a_start_warns,),
            (stuck_path,),
        ):
            begin = time.monotonic()
            case(configs, *more)
            print(f"{case.__name__}: {time.monotonic() - begin:.1f} s")
    print("doctor_test: passed")
    return 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that loop devices are given back
    if len(sys.argv) > 3:
        return inside()
    if os.geteuid() != 0:
        print("doctor_test: skipped, needs root for loop devices")
        return SKIPPED
    namespaces = ["unshare", "--mount", "--net"]
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode != 0:
        print("doctor_test: skipped, namespaces are not to be had here")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        loops = Loops(folder, 1 << 20)
        try:
            loops.make(512)
        except OSError as problem:
            print(f"doctor_test: skipped, no loop device is to be had: {problem}")
            return SKIPPED
        finally:
            loops.free_all()
    this = os.path.abspath(__file__)
    os.execvp("unshare", [*namespaces, sys.executable, this, MEMKV, SHIFTED_CLOCK, "inside"])


if __name__ == "__main__":
    sys.exit(main())
