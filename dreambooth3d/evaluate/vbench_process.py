"""One dimension of VBench, run by the interpreter of VBench's own environment.

Stands alone: that environment has other packages than ours, and this file imports none of ours.
``python vbench_process.py ORDER.json`` with ``{"videos": folder, "prompts": {file: text},
"dimension": name, "results": folder}`` leaves VBench's own ``order_eval_results.json`` in the
folder of results. It ends when its standard input is closed: whoever asked is gone then.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

NAME = "order"
_SOCKET_SECONDS = 60.0
# What wget of VBench would otherwise wait: 20 tries of 15 minutes.
_WGET = "\ntries = 3\ntimeout = 60\n"


def main() -> None:
    """Read the order, let VBench carry it out."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _hurry_downloads(Path(sys.argv[1]).parent)
    # Beside this file lie modules that are called as packages are.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]

    import torch
    import vbench

    # As VBench's own launcher does, which needs several processes and NCCL.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prompts_of_all = Path(vbench.__file__).with_name("VBench_full_info.json")
    vbench.VBench(device, str(prompts_of_all), order["results"]).evaluate(
        videos_path=order["videos"],
        name=NAME,
        prompt_list=order["prompts"],
        dimension_list=[order["dimension"]],
        mode="custom_input",
        imaging_quality_preprocessing_mode="longer",
    )


def _end_with_parent() -> None:
    """Kill this process and its downloads when standard input ends."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _hurry_downloads(folder: Path) -> None:
    """Let a download fail in minutes; the caller's own settings of wget are kept."""
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    usual = Path(os.environ.get("WGETRC") or Path.home() / ".wgetrc")
    known = usual.read_text(encoding="utf-8") if usual.is_file() else ""
    (folder / "wgetrc").write_text(known + _WGET, encoding="utf-8")
    os.environ["WGETRC"] = str(folder / "wgetrc")


if __name__ == "__main__":
    main()
