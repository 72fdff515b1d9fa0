"""Processes of a test that form a process group."""

import os
import sys

from torch import distributed


def end_member() -> None:
    """End this process, whose work is done, with its group.

    Not by the end of Python: a process has aborted there after its work, rarely, as C++ does when a
    thread of its own, such as gloo's, wants an interpreter that is gone.
    """
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
