"""Ports of the loopback interface for servers that tests start.

From below the range that the kernel takes ports for outgoing connections from: within it, the neighbour of a
free port may be that of a connection, one that ended a minute ago included.
"""

import random
import socket

FIRST, LAST = 20_000, 32_000


def free_port(following=1):
    """A port that nobody has, and as many behind it: the next one is that of the administration."""
    while True:
        port = random.SystemRandom().randrange(FIRST, LAST - following)
        sockets = [socket.socket() for _ in range(following + 1)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", port + number))
            return port
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
