"""One start of the virtual machine, from the making of its drives to the removal of everything.

QEMU emulates the processor in software (TCG); /dev/kvm is never used. The guest has the host's root file
system, read-only under a layer in memory, so it sees programs, libraries and the build tree at their own
paths, and nothing that it writes survives, except on the drives and in the shared directory, and those end
with the machine too.

Threading: one thread a machine, any number of machines. Ownership: ends only the process that it started and
removes only its own temporary directory; the process dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import kernel as kernels

QEMU = "qemu-system-x86_64"
SHARE = "/run/memkv-vm"
RDMA_MODULES = ["crc32_generic", "crc32_pclmul", "rdma_rxe", "ib_uverbs", "rdma_ucm", "veth"]
OVERTIME = 124
FAILED = 125
CONSOLE_LINES = 40


class Machine:
    """What to start. Sizes in bytes, times in seconds."""

    def __init__(self) -> None:
        self.memory_mib = 2048
        self.processors = 2
        self.drives = 0
        self.drive_bytes = 1 << 30
        self.sector_bytes = 4096
        self.modules: list[str] = []
        self.environment: dict[str, str] = {}
        self.timeout_s = 600.0

    def run(self, kernel: kernels.Kernel, initial_root: pathlib.Path, command: list[str]) -> int:
        """Runs the command in a machine, passes its output on and returns its exit code; OVERTIME and FAILED
        when there is none."""
        if shutil.which(QEMU) is None:
            raise kernels.Unavailable(f"{QEMU} is missing: run scripts/install-dependencies --vm")
        with tempfile.TemporaryDirectory(prefix="memkv-vm-") as name:
            directory = pathlib.Path(name)
            share = directory / "share"
            (share / "drives").mkdir(parents=True)
            for number in range(self.drives):
                with open(share / "drives" / str(number), "wb") as drive:
                    drive.truncate(self.drive_bytes)
            (share / "command").write_text(self._script(kernel, command), encoding="utf-8")
            console = directory / "console"
            words = self._words(kernel, initial_root, share, console)
            begin = time.monotonic()
            reached = self._watch(words)
            code = share / "code"
            if code.exists() and reached:
                number = int(code.read_text(encoding="ascii"))
                seconds = time.monotonic() - begin
                print(f"vm: the script ended with {number} after {seconds:.0f} s", file=sys.stderr)
                return number
            what = "did not end" if reached else f"had not ended after {self.timeout_s:g} s"
            print(f"vm: the script {what}; the last lines of the console:", file=sys.stderr)
            with contextlib.suppress(OSError):
                lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
                print("\n".join(lines[-CONSOLE_LINES:]), file=sys.stderr)
            return FAILED if reached else OVERTIME

    def _script(self, kernel: kernels.Kernel, command: list[str]) -> str:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/run",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "MEMKV_VM_SHARE": SHARE,
            **self.environment,
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        lines.append(f"cd {shlex.quote(os.getcwd())} || exit {FAILED}")
        if self.modules:
            modprobe = shlex.join(["modprobe", "-d", str(kernel.directory), "-a", *self.modules])
            lines.append(f"{modprobe} || exit {FAILED}")
        lines.append(f"exec {shlex.join(command)}")
        return "\n".join([*lines, ""])

    def _words(
        self, kernel: kernels.Kernel, initial_root: pathlib.Path, share: pathlib.Path, console: pathlib.Path
    ) -> list[str]:
        words = [QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        words += ["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi"]
        words += ["-smp", str(self.processors), "-m", str(self.memory_mib)]
        words += ["-kernel", str(kernel.image), "-initrd", str(initial_root)]
        # A panic ends the machine at once. Mitigations cost time and protect nothing here. On a busy host the
        # kernel could find the timer too slow and not start, or take the clock for unstable and change
        # its own code for that, which the emulation does not always survive.
        words += ["-append", "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check tsc=reliable"]
        words += ["-serial", f"file:{console}"]
        words += ["-chardev", "stdio,id=output,signal=off", "-device", "virtio-serial-pci"]
        words += ["-device", "virtserialport,chardev=output,name=output"]
        words += ["-device", "virtio-rng-pci"]
        local = "security_model=none,multidevs=remap"
        words += ["-fsdev", f"local,id=root,path=/,readonly=on,{local}"]
        words += ["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
        words += ["-fsdev", f"local,id=share,path={share},{local}"]
        words += ["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]
        size = f"logical_block_size={self.sector_bytes},physical_block_size={self.sector_bytes}"
        for number in range(self.drives):
            # Flushes need not reach the host's own drive: the files do not outlive the machine. The guest
            # sees a drive with a volatile cache all the same.
            options = "if=none,format=raw,discard=unmap,cache=unsafe"
            words += ["-drive", f"{options},id=drive{number},file={share}/drives/{number}"]
            words += ["-device", f"nvme,serial=memkv-vm-{number},drive=drive{number},{size}"]
        return words

    def _watch(self, words: list[str]) -> bool:
        """Runs QEMU until it ends; false when it had to be ended."""
        deadline = time.monotonic() + self.timeout_s
        parent = os.getpid()
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

        process = subprocess.Popen(
            # The port of the output counts as closed once the other direction has ended: it stays open.
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent
        )
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if select.select([process.stdout], [], [], left)[0]:
                    data = os.read(process.stdout.fileno(), 1 << 16)
                    if not data:
                        break
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
            process.wait(max(1.0, deadline - time.monotonic()))
            return True
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()
