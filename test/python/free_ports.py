"""Ports of the loopback interface for servers that tests start.

From below the range that the kernel takes ports for outgoing connections from: within it, the neighbour of
a free port may be that of a connection, one that ended a minute ago included. And from below those that a
server looks through that may choose for itself (actors/run_server.cpp).
"""

import random
import socket

FIRST, LAST = 12_000, 20_000

# Held until this process ends: between the choice of a port and the server's binding it nobody else may be
# given it, neither by this process nor by a test beside it. A name in the abstract space of Unix sockets
# belongs to one network namespace, as the port does, and nothing of it is left behind.
claims = []


def claim(port):
    """Whether this process is now the only one that was given the port."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0memkv-test-port-{port}")
    except OSError:
        mark.close()
        return False
    claims.append(mark)
    return True


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(following=1):
    """A port that nobody has, and as many behind it: the next one is that of the administration."""
    while True:
        port = random.SystemRandom().randrange(FIRST, LAST - following)
        if all(claim(each) and is_free(each) for each in range(port, port + following + 1)):
            return port
