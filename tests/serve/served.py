from fastapi.testclient import TestClient
from httpx import Response

from dreambooth3d.model.backbone import Backbone
from serve.engine import Engine
from serve.jobs import JobTable
from serve.routes import make_api
from serve.services import open_services
from serve.settings import ServeSettings

CLIP = {"prompt": "a red car", "num_frames": 5, "num_inference_steps": 2, "seed": 1}


class Served:
    """An API over a real job table; the engine starts when asked."""

    def __init__(self, settings: ServeSettings, backbone: Backbone) -> None:
        self.jobs = JobTable(settings.database_url)
        self.engine = Engine(settings, backbone=backbone, jobs=self.jobs)
        self.api = make_api(
            open_services(settings, self._is_ready, is_loopback=True, jobs=self.jobs)
        )
        self.http = TestClient(self.api, base_url="http://127.0.0.1")

    async def _is_ready(self) -> bool:
        return self.engine.is_warm


def refusal(answer: Response, status: int) -> tuple[str, str | None]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param"}
    assert " must " in error["message"]
    return error["code"], error["param"]
