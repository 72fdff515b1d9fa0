"""Lines of workers reach the driver, whatever is killed in between."""

import os
import signal

import pytest
import ray

from benchmarks.processes import wait_until
from dreambooth3d.runtime.relay import relayed
from dreambooth3d.runtime.session import ray_session


@pytest.mark.ray
def test_a_killed_queue_costs_no_more_than_its_lines() -> None:
    said: list[str] = []
    with ray_session():
        with relayed(said.append) as lines:
            lines.put("before")
            assert wait_until(lambda: said == ["before"], seconds=20)
            pid = ray.get(lines.actor.__ray_call__.remote(lambda actor: os.getpid()))
            os.kill(pid, signal.SIGKILL)
            lines.put("after")
        assert said[-1] == "after"
