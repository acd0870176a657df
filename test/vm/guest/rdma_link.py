"""A soft-RoCE device of the guest: made, taken away under whoever uses it, and given back."""

from __future__ import annotations

import subprocess

NAME = "rxe0"
ADDRESS = "10.7.0.1"
MTU = "9000"  # for a path MTU of 4096 bytes
DELETE_S = 60.0


def run(*command: str, timeout_s: float = 30.0) -> None:
    """One command that must succeed."""
    subprocess.run(command, check=True, timeout=timeout_s)


def add() -> None:
    """The device, on the network interface that make() made."""
    run("rdma", "link", "add", NAME, "type", "rxe", "netdev", "v0")


def make() -> None:
    """The interface and the device."""
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "address", "add", f"{ADDRESS}/24", "dev", "v0")
    for end in ("lo", "v0", "v1"):
        run("ip", "link", "set", end, "up")
    for end in ("v0", "v1"):
        run("ip", "link", "set", end, "mtu", MTU)
    add()


def take_port_down() -> None:
    """What a pulled cable looks like."""
    run("ip", "link", "set", "v0", "down")


def bring_port_up() -> None:
    """The cable is back."""
    run("ip", "link", "set", "v0", "up")


def delete() -> None:
    """Takes the device away. The kernel waits until everybody has closed it: a program that does not is found
    by the time-out."""
    run("rdma", "link", "delete", NAME, timeout_s=DELETE_S)
