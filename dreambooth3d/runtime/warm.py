"""A warm process: it loads once, then forks a child for each order, so that all share one copy.

A child has the weights, the code and the libraries of its parent without reading or copying
anything: memory is only taken for what it writes. The parent stays single-threaded and never
computes, which is what makes forking safe; it lasts as long as its standard input is open.

Messages are JSON. A child gets its order, tells what it has to tell, answers, and ends; when who
ordered is gone, it ends at once.
"""

import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, cast

READY = "ready"
Message = dict[str, Any]


class Work(Protocol):
    """A module whose work is done in forked children."""

    def warm_up(self, settings: Message) -> None:
        """Load what all orders share."""

    def work(self, order: Message, tell: Callable[[Message], None]) -> Message:
        """Carry one order out."""


def load_work(module: str) -> Work:
    """Import the module of this name."""
    return cast("Work", importlib.import_module(module))


def connect(address: str) -> Connection:
    """Ask the warm process at this address for a child."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(address)
    return Connection(channel.detach())


def send(connection: Connection, message: Message) -> None:
    """Send one message."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Message:
    """Wait for one message.

    Raises:
        EOFError: the other side is gone.
    """
    message: Message = json.loads(connection.recv_bytes())
    return message


def main(arguments: list[str]) -> None:
    """Load, say so, and fork a child for every connection until standard input closes."""
    address, module, settings = arguments
    work = load_work(module)
    work.warm_up(json.loads(settings))
    # Children must not touch, and so copy, pages of objects that are older than they.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print(READY, flush=True)
        while True:
            readable, _, _ = select.select([sys.stdin, listener], [], [])
            if sys.stdin in readable:
                # The one that started this process is gone, and cannot tidy up.
                shutil.rmtree(Path(address).parent, ignore_errors=True)
                return
            channel, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _child(work, Connection(channel.detach()))
                return
            channel.close()


def _child(work: Work, connection: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = receive(connection)
    _log_to(Path(order["log"]))
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    answer = work.work(order, lambda told: send(connection, {"told": told}))
    send(connection, {"answer": answer})


def _log_to(path: Path) -> None:
    """What libraries print, and the traceback of an error, go to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _end_with(connection: Connection) -> None:
    """End this process when the one that ordered is gone."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
