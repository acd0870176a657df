"""Loop devices as raw drives for tests: made, made to fail, looked at, and given back.

Linux, root. Threading: one thread. Errors: OSError. Whoever makes devices frees them in the end: free_all.
"""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import time

LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05
LOOP_STATUS = struct.Struct("<5Q4I64s64s32s2Q")
LOOP_STATUS_SIZE_LIMIT = 4  # place of the field
PAGE = 4096


class Loops:
    """Loop devices over sparse files in `folder`, or where make() is told."""

    def __init__(self, folder, size):
        self.folder, self.size, self.devices, self.made = folder, size, {}, 0

    def make(self, sector_bytes, *flags, size=None, folder=None):
        self.made += 1
        path = os.path.join(folder or self.folder, f"image{self.made}")
        with open(path, "wb") as file:
            file.truncate(size or self.size)
        return self.attach(path, sector_bytes, *flags)

    def attach(self, path, sector_bytes, *flags):
        done = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", f"--sector-size={sector_bytes}", *flags, path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OSError(done.stderr.strip())
        device = done.stdout.strip()
        self.devices[device] = path
        return device

    def detach(self, device):
        """The image stays, and is returned."""
        subprocess.run(["losetup", "--detach", device], check=True, capture_output=True)
        return self.devices.pop(device)

    def image(self, device):
        return self.devices[device]

    def free(self, device):
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
        with contextlib.suppress(FileNotFoundError):  # another device on the same image was freed before
            os.unlink(self.devices.pop(device))

    def free_all(self):
        for device in list(self.devices):
            self.free(device)


def set_size_limit(device, limit):
    """What lies behind `limit` can be neither read nor written from now on; 0: everything is there again.

    Works while the device is in use. What is cut off keeps its bytes.
    """
    file = os.open(device, os.O_RDWR)
    try:
        status = bytearray(LOOP_STATUS.size)
        fcntl.ioctl(file, LOOP_GET_STATUS64, status)
        fields = list(LOOP_STATUS.unpack(status))
        fields[LOOP_STATUS_SIZE_LIMIT] = limit
        fcntl.ioctl(file, LOOP_SET_STATUS64, LOOP_STATUS.pack(*fields))
    finally:
        os.close(file)


class Freezer:
    """A file system of its own whose writes can be made to hang, and with them loop devices over its files.

    Needs a mount namespace. While it is frozen a process of its own waits to thaw it, whatever becomes of the
    test.
    """

    THAW_AFTER_S = 100  # a test that has not done so itself by then is gone or stuck

    def __init__(self, folder, size):
        self.image, self.folder, self.watchdog = folder + ".ext4", folder, None
        with open(self.image, "wb") as file:
            file.truncate(size)
        os.mkdir(folder)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, folder], check=True)

    def freeze(self):
        # Through pipes nobody reads a test's end would wait for the watchdog.
        self.watchdog = subprocess.Popen(
            ["sh", "-c", f'sleep {self.THAW_AFTER_S}; fsfreeze --unfreeze "$0"', self.folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        subprocess.run(["fsfreeze", "--freeze", self.folder], check=True)

    def thaw(self):
        if self.watchdog is None:
            return
        subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=False)
        os.killpg(self.watchdog.pid, signal.SIGKILL)
        self.watchdog.wait()
        self.watchdog = None

    def close(self):
        """When nobody uses a file on it any more."""
        self.thaw()
        subprocess.run(["umount", self.folder], check=False)


def allocated_bytes(path):
    """What of a file takes space."""
    os.sync()
    return os.stat(path).st_blocks * 512


def wait_until_given_back(device):
    """The kernel takes the ring of a killed server apart after its end, and the ring holds the drives."""
    end = time.monotonic() + 30
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
            return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.01)


class Throttle:
    """A limit of the kernel's own block layer on what one process asks of one device.

    Uses the control group of block devices, of either version, where there is one: OSError elsewhere. close()
    when the process has ended, or to let it go on without a limit.
    """

    def __init__(self, pid, device):
        status = os.stat(device)
        self.device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        for root, file, self.form, self.none in (
            ("/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device", "{} {}", "0"),
            ("/sys/fs/cgroup", "io.max", "{} wiops={}", "max"),
        ):
            self.folder = os.path.join(root, f"memkv-test-{os.getpid()}")
            self.limit, self.root = os.path.join(self.folder, file), root
            try:
                os.mkdir(self.folder)
            except OSError:
                continue
            if os.path.exists(self.limit):
                break
            os.rmdir(self.folder)
        else:
            raise OSError("no control group limits block devices here")
        self._write(os.path.join(self.folder, "cgroup.procs"), str(pid))

    @staticmethod
    def _write(path, text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def writes_a_second(self, count):
        """From now on; None for no limit."""
        self._write(self.limit, self.form.format(self.device, self.none if count is None else count))

    def close(self):
        self.writes_a_second(None)
        end = time.monotonic() + 10
        while True:
            with open(os.path.join(self.folder, "cgroup.procs"), encoding="ascii") as file:
                for pid in file.read().split():
                    with contextlib.suppress(ProcessLookupError):
                        self._write(os.path.join(self.root, "cgroup.procs"), pid)
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)
