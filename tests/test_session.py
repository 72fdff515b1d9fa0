"""What is said of a failure on a worker is its own sentence, whatever Ray puts around it."""

from collections.abc import Iterator

import pytest
import ray
import ray.data
from ray.exceptions import RayError

from dreambooth3d.errors import InputError, RunError
from dreambooth3d.runtime.session import last_line, one_sentence, ray_session

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session():
        yield


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("pictures must be whole, got half"), "pictures must be whole, got half"),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left"),
        (ZeroDivisionError("one by nothing"), "ZeroDivisionError: one by nothing"),
    ],
)
def test_a_workers_own_error_is_what_is_said(error: Exception, sentence: str) -> None:
    def fail(row: dict[str, int]) -> dict[str, int]:
        raise error

    with pytest.raises(RayError) as data:
        list(ray.data.range(1).map(fail).iter_rows())
    assert last_line(data.value) == sentence
    with pytest.raises(RayError) as task:
        ray.get(ray.remote(fail).remote({}))
    assert last_line(task.value) == sentence


@pytest.mark.parametrize(
    ("error", "address", "sentence"),
    [
        (
            # What `ray.init` raises of a node that is late, words and kind.
            Exception("The current node timed out\nduring startup."),
            "",
            "Ray must start on this machine, got: The current node timed out during startup.; run",
        ),
        (ConnectionError("no one there"), "host:1", "Ray must be reachable at host:1, got: no one"),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(
    error: Exception, address: str, sentence: str
) -> None:
    with pytest.raises(RunError) as said, one_sentence(address):
        raise error
    assert str(said.value).startswith(sentence)
    assert "\n" not in str(said.value)


def test_other_errors_at_the_start_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError), one_sentence(""):
        raise ZeroDivisionError
