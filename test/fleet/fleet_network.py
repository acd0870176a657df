"""A network of hosts on one machine: a namespace each, joined by a bridge in the namespace of the caller.

Namespaces have no names: each lives as long as the process that holds it, and that dies with the caller,
whatever kills it. So nothing can be left behind. Call inside `unshare --net`: the bridge goes the same way.

Linux, root. Threading: one thread. Errors: OSError.
"""

import ctypes
import signal
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
NETWORK = "10.77.0"
CALLER = f"{NETWORK}.100"


def die_with_the_caller():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Host:
    """One namespace with one interface."""

    def __init__(self, number):
        self.number, self.address = number, f"{NETWORK}.{number}"
        self.outside, inside = f"host{number}", f"inner{number}"
        # It says a word when it is in its namespace: before, its number would stand for the caller's.
        self.holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo in; exec sleep 100000"],
            stdout=subprocess.PIPE,
            preexec_fn=die_with_the_caller,
        )
        try:
            if self.holder.stdout.readline() != b"in\n":
                raise OSError("no network namespace can be had")
            ip("link", "add", self.outside, "type", "veth", "peer", "name", inside)
            ip("link", "set", inside, "netns", str(self.holder.pid))
            ip("link", "set", self.outside, "master", "fleet", "up")
            for words in (
                ("addr", "add", f"{self.address}/24", "dev", inside),
                ("link", "set", inside, "up"),
                ("link", "set", "lo", "up"),
            ):
                done = subprocess.run([*self.enter(), "ip", *words], capture_output=True, check=False)
                if done.returncode != 0:
                    raise OSError(done.stderr.decode().strip())
        except BaseException:
            self.close()
            raise

    def enter(self):
        """What comes before a command to run it on this host."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]

    def cut_off(self):
        ip("link", "set", self.outside, "down")

    def join(self):
        ip("link", "set", self.outside, "up")

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Network:
    def __init__(self, count):
        self.hosts = []
        ip("link", "add", "fleet", "type", "bridge")
        ip("addr", "add", f"{CALLER}/24", "dev", "fleet")
        ip("link", "set", "fleet", "up")
        ip("link", "set", "lo", "up")
        try:
            for number in range(1, count + 1):
                self.hosts.append(Host(number))
        except BaseException:
            self.close()
            raise

    def close(self):
        for host in self.hosts:
            host.close()
        ip("link", "del", "fleet")
