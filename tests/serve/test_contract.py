"""Remixes, progress as events, and what /openapi.json says."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dreambooth3d.model.backbone import Backbone
from serve.settings import ServeSettings
from tests.serve.served import CLIP, Served, refusal

AddSubject = Callable[..., Path]


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.splitlines() for block in text.split("\n\n")]
    named = [block for block in blocks if block and block[0].startswith("event: ")]
    return [(name[7:], json.loads(data.removeprefix("data: "))) for name, data in named]


def test_a_remix_keeps_all_but_the_prompt(served: Served, add_subject: AddSubject) -> None:
    add_subject("mug")
    http = served.http
    asked = CLIP | {"prompt": "a [sks mug]", "subject": "mug", "guidance_scale": 2.5, "fps": 5}
    first = http.post("/v1/videos", json=asked).json()
    assert first["remixed_from_video_id"] is None
    where = f"/v1/videos/{first['id']}/remix"
    remixed = http.post(where, json={"prompt": "a [sks mug] in snow"})
    assert remixed.status_code == 202
    second = remixed.json()
    assert remixed.headers["location"] == f"/v1/videos/{second['id']}"
    assert (second["prompt"], second["remixed_from_video_id"]) == (
        "a [sks mug] in snow",
        first["id"],
    )
    kept = ("subject", "seed", "size", "num_frames", "fps", "num_inference_steps")
    assert [second[name] for name in (*kept, "guidance_scale")] == [
        first[name] for name in (*kept, "guidance_scale")
    ]
    assert refusal(http.post(where, json={"prompt": "a [sks dog]"}), 400)[1] == "prompt"
    assert refusal(http.post(where, json={"prompt": " "}), 400)[1] == "prompt"
    assert refusal(http.post(where, json={"prompt": "x", "seed": 2}), 400)[1] == "seed"
    unknown = http.post("/v1/videos/video_0/remix", json={"prompt": "x"})
    assert refusal(unknown, 404) == ("video_not_found", "video_id")
    headers = {"Idempotency-Key": "again"}
    twice = [http.post(where, json={"prompt": "x"}, headers=headers).json() for _ in range(2)]
    assert twice[0]["id"] == twice[1]["id"]


def test_a_remix_of_a_subject_that_is_gone_is_refused(
    served: Served, add_subject: AddSubject
) -> None:
    folder = add_subject("mug")
    asked = CLIP | {"prompt": "a [sks mug]", "subject": "mug"}
    first = served.http.post("/v1/videos", json=asked).json()
    (folder / "adapter.json").unlink()
    answer = served.http.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "x"})
    assert refusal(answer, 404) == ("subject_not_found", "subject")


def test_events_tell_of_every_look_until_the_end(served: Served) -> None:
    http = served.http
    video = http.post("/v1/videos", json=CLIP | {"num_inference_steps": 30}).json()
    engine = threading.Thread(target=served.engine.run_once)
    with http.stream("GET", f"/v1/videos/{video['id']}/events") as stream:
        engine.start()
        assert stream.headers["content-type"].startswith("text/event-stream")
        found = events(stream.read().decode())
    engine.join()
    assert {name for name, _ in found} == {"video"}
    told = [(data["status"], data["step"]) for _, data in found]
    assert told[-1] == ("completed", 30)
    assert told == sorted(told, key=lambda one: one[1])
    late = http.get(f"/v1/videos/{video['id']}/events")
    assert [data["status"] for _, data in events(late.text)] == ["completed"]
    assert refusal(http.get("/v1/videos/video_0/events"), 404)[0] == "video_not_found"


def test_events_of_a_deleted_video_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    video = served.http.post("/v1/videos", json=CLIP).json()
    get, looks = served.jobs.get, []

    def once(job_id: str) -> object:
        looks.append(job_id)
        # The route's look, the stream's first, then a delete.
        if len(looks) == 3:
            served.jobs.delete(job_id)
        return get(job_id)

    monkeypatch.setattr(served.jobs, "get", once)
    found = events(served.http.get(f"/v1/videos/{video['id']}/events").text)
    assert [name for name, _ in found] == ["video", "deleted"]


def test_every_method_of_a_path_is_allowed(served: Served) -> None:
    answer = served.http.put("/v1/videos")
    assert answer.headers["allow"] == "GET, POST"
    assert served.http.put("/v1/videos/x").headers["allow"] == "DELETE, GET"
    assert served.http.post("/").headers["allow"] == "GET"


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
WITH_BODY = ("create_video", "remix_video", "create_subject")


def test_only_documented_answers_are_given(
    settings: ServeSettings, backbone: Backbone, add_subject: AddSubject
) -> None:
    served = Served(settings.model_copy(update={"max_steps": 2, "max_clip_tokens": 64}), backbone)
    add_subject("mug")
    ids = [served.http.post("/v1/videos", json=CLIP | {"num_frames": 1}).json()["id"] for _ in "ab"]
    served.engine.run_once()
    served.engine.warm_up()
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.api)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.definition.raw["operationId"] for operation in operations} >= {*WITH_BODY}
    num_cases = 0
    for operation in operations:
        known = {
            "video_id": st.sampled_from(ids),
            "subject_id": st.just("mug"),
            "number": st.just(1),
        }
        named = {part.name for part in operation.path_parameters}
        cases = [operation.as_strategy()]
        if operation.definition.raw["operationId"] in WITH_BODY:
            cases.append(
                operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
            )
        real = st.fixed_dictionaries(
            {name: found for name, found in known.items() if name in named}
        )

        @hypothesis.seed(1)
        @hypothesis.settings(
            max_examples=8,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=st.one_of(cases), path=st.none() | real)
        def ask(case: schemathesis.Case, path: dict[str, object] | None) -> None:
            nonlocal num_cases
            if path:
                case.path_parameters = path
            case.call_and_validate(base_url="http://127.0.0.1", checks=CHECKS)
            num_cases += 1

        ask()
    assert num_cases >= 100
