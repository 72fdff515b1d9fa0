"""Processes of a test that form a process group."""

import os
import sys

from torch import distributed


def end_member() -> None:
    """End this process, whose work is done, with its group.

    Not by the end of Python: a thread of gloo that still wants the interpreter then aborts the
    process, once in some hundred times.
    """
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
