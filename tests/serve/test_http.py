import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import hypothesis
import numpy as np
import openai
import pytest
import uvicorn
from hypothesis import strategies as st
from PIL import Image

from dreambooth3d.model.backbone import Backbone
from dreambooth3d.personalize.outcome import Evidence, Judgement
from dreambooth3d.personalize.warm_worker import write_evidence
from serve.keys import KeyTable
from serve.schema import VideoCreate
from serve.settings import ServeSettings
from tests.serve.served import CLIP, Served, refusal

AddSubject = Callable[..., Path]


def test_a_clip_from_post_to_mp4(served: Served, add_subject: AddSubject) -> None:
    add_subject("mug")
    http = served.http
    asked = CLIP | {"prompt": "a [sks mug]", "subject": "mug", "metadata": {"k": "v"}}
    created = http.post("/v1/videos", json=asked)
    assert created.status_code == 202
    video = created.json()
    assert created.headers["location"] == f"/v1/videos/{video['id']}"
    assert int(created.headers["openai-poll-after-ms"]) > 0
    assert (video["object"], video["status"], video["queue_position"]) == ("video", "queued", 1)
    assert (video["seconds"], video["size"], video["metadata"]) == ("0.625", "32x32", {"k": "v"})
    content = f"/v1/videos/{video['id']}/content"
    early = http.get(content)
    assert refusal(early, 409) == ("video_not_ready", None)
    assert int(early.headers["retry-after"]) >= 1
    served.engine.run_once()
    done = http.get(f"/v1/videos/{video['id']}").json()
    assert (done["status"], done["progress"], done["step"], done["steps"]) == (
        "completed",
        100,
        2,
        2,
    )
    assert done["adapter"]["layers_applied"] == done["adapter"]["layers_expected"] > 0
    assert done["expires_at"] > done["completed_at"] >= done["created_at"]
    clip = http.get(content)
    assert clip.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(clip.content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == 5
    part = http.get(content, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, clip.content[4:8])
    assert part.headers["content-range"] == f"bytes 4-7/{len(clip.content)}"
    assert refusal(http.get(content, headers={"Range": "bytes=99999999-"}), 416)[1] == "Range"
    assert refusal(http.get(content, headers={"Range": "bytes=9-1"}), 400)[1] == "Range"
    thumbnail = http.get(content, params={"variant": "thumbnail"})
    assert Image.open(io.BytesIO(thumbnail.content)).size == (32, 32)
    assert refusal(http.get(content, params={"variant": "spritesheet"}), 400)[1] == "variant"
    deleted = http.delete(f"/v1/videos/{video['id']}").json()
    assert deleted == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert refusal(http.get(content), 404) == ("video_not_found", "video_id")
    assert refusal(http.delete(f"/v1/videos/{video['id']}"), 404)[0] == "video_not_found"


def test_forms_are_taken_like_json(served: Served) -> None:
    fields = {key: (None, str(value)) for key, value in CLIP.items()}
    for metadata in ({"metadata[a]": (None, "b")}, {"metadata": (None, '{"a": "b"}')}):
        video = served.http.post("/v1/videos", files=fields | metadata)
        assert video.status_code == 202
        assert (video.json()["num_frames"], video.json()["metadata"]) == (5, {"a": "b"})
    refused = served.http.post("/v1/videos", files=fields | {"metadata": (None, "{")})
    assert refusal(refused, 400) == ("invalid_value", "metadata")
    assert "metadata must be an object, got '{'" in refused.text


def raw(content: bytes, kind: str = "application/json") -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": kind}}


FORM = "multipart/form-data"


@pytest.mark.parametrize(
    ("request_fields", "status", "code", "param"),
    [
        ({"json": {}}, 400, "invalid_value", "prompt"),
        ({"json": []}, 400, "invalid_value", "body"),
        ({"json": CLIP | {"num_frames": 6}}, 422, "shape_not_allowed", "num_frames"),
        ({"json": CLIP | {"prompt": "a [sks mug]"}}, 400, "invalid_prompt", "prompt"),
        ({"json": CLIP | {"subject": "nobody"}}, 404, "subject_not_found", "subject"),
        ({"json": CLIP | {"subject": "../../etc"}}, 404, "subject_not_found", "subject"),
        ({"json": CLIP | {"model": "sora-2"}}, 404, "model_not_found", "model"),
        ({"json": CLIP | {"steps": 2}}, 400, "invalid_value", "steps"),
        (raw(b"{"), 400, "invalid_value", "body"),
        (raw(b"[" * 99999), 400, "invalid_value", "body"),
        (raw(b'{"prompt": "\\ud800"}'), 400, "invalid_value", "prompt"),
        (raw(b'{"\\ud800": 1, "prompt": "x"}'), 400, "invalid_value", "body"),
        (raw(b'{"prompt": "x", "metadata": {"a": "\\ud800"}}'), 400, "invalid_value", "metadata"),
        (raw(b"x", "text/plain"), 400, "invalid_value", "Content-Type"),
        (raw(b"x", FORM), 400, "invalid_value", "body"),
        (raw(b"x", f"{FORM}; boundary=b"), 400, "invalid_value", None),
        ({"files": {"input_reference": ("a.png", b"x")}}, 400, "invalid_value", "body"),
        (raw(b"x" * 2**21), 413, "body_too_large", None),
        ({"json": CLIP | {"num_frames": int("1" + "0" * 400)}}, 400, "invalid_value", "num_frames"),
        ({"json": CLIP | {"metadata": {"a": "b" * 513}}}, 400, "invalid_value", "metadata"),
        ({"json": CLIP, "headers": {"Host": "["}}, 403, "foreign_host", "Host"),
        ({"json": CLIP, "headers": {"Origin": "http://["}}, 403, "foreign_origin", "Origin"),
        (
            {"json": CLIP, "headers": {"Idempotency-Key": "x" * 300}},
            400,
            "invalid_value",
            "Idempotency-Key",
        ),
    ],
)
def test_bad_requests_get_their_code_and_a_sentence(
    served: Served, request_fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    found = refusal(served.http.post("/v1/videos", **request_fields), status)
    assert found[0] == code
    assert param is None or found[1] == param
    assert served.jobs.page() == ((), False)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    fields=st.dictionaries(st.sampled_from([*VideoCreate.model_fields, "x"]), ANYTHING),
    is_form=st.booleans(),
)
def test_whatever_is_sent_is_answered(
    served: Served, fields: dict[str, Any], is_form: bool
) -> None:
    fields = {"prompt": "a red car"} | fields
    if is_form:
        parts = {key: (None, str(value)) for key, value in fields.items()}
        answer = served.http.post("/v1/videos", files=parts)
    else:
        kind = {"content-type": "application/json"}
        answer = served.http.post("/v1/videos", content=json.dumps(fields), headers=kind)
    assert answer.status_code in (202, 400, 404, 422), answer.text
    if answer.status_code != 202:
        refusal(answer, answer.status_code)


def test_adapters_made_for_something_else_are_refused(
    settings: ServeSettings, backbone: Backbone, add_subject: AddSubject
) -> None:
    add_subject("old", revision="0" * 16)
    add_subject("lone", reference_attention="isolated")
    http = Served(settings.model_copy(update={"reference_attention": "joint"}), backbone).http
    for name, words in (
        ("old", "at revision"),
        ("lone", "reference_attention isolated, got joint"),
    ):
        answer = http.post("/v1/videos", json=CLIP | {"subject": name})
        assert refusal(answer, 409) == ("adapter_mismatch", "subject")
        assert words in answer.json()["error"]["message"]
        shown = http.get(f"/v1/subjects/{name}").json()
        assert (shown["status"], shown["error"]["code"]) == ("failed", "adapter_mismatch")


def test_cancel_is_idempotent_and_too_late_after_the_end(served: Served) -> None:
    http = served.http
    first, second = (http.post("/v1/videos", json=CLIP).json()["id"] for _ in range(2))
    for _ in range(2):
        canceled = http.post(f"/v1/videos/{first}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (202, "canceled")
    assert refusal(http.get(f"/v1/videos/{first}/content"), 409)[0] == "video_canceled"
    served.engine.run_once()
    assert refusal(http.post(f"/v1/videos/{second}/cancel"), 409)[0] == "video_already_finished"
    assert refusal(http.post("/v1/videos/nothing/cancel"), 404)[0] == "video_not_found"


def test_idempotency_and_the_bounded_queue(settings: ServeSettings, backbone: Backbone) -> None:
    http = Served(settings.model_copy(update={"max_queued": 1}), backbone).http
    asked = {key: value for key, value in CLIP.items() if key != "seed"}
    first, again = (
        http.post("/v1/videos", json=asked, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/v1/videos", json=CLIP, headers={"Idempotency-Key": "k"})
    assert refusal(other, 409) == ("idempotency_conflict", "Idempotency-Key")
    full = http.post("/v1/videos", json=CLIP)
    assert refusal(full, 429)[0] == "queue_full"
    assert int(full.headers["retry-after"]) >= 1


def test_an_expired_clip_is_gone(settings: ServeSettings, backbone: Backbone) -> None:
    served = Served(settings.model_copy(update={"keep_s": 1e-3}), backbone)
    video = served.http.post("/v1/videos", json=CLIP).json()
    served.engine.run_once()
    answer = served.http.get(f"/v1/videos/{video['id']}/content")
    assert refusal(answer, 410)[0] == "video_expired"
    assert served.http.get(f"/v1/videos/{video['id']}").json()["status"] == "completed"


def test_lists_have_cursors(served: Served, add_subject: AddSubject) -> None:
    http = served.http
    ids = [http.post("/v1/videos", json=CLIP).json()["id"] for _ in range(3)]
    page = http.get("/v1/videos", params={"limit": 2}).json()
    assert [video["id"] for video in page["data"]] == [ids[2], ids[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    page = http.get("/v1/videos", params={"limit": 2, "after": ids[1]}).json()
    assert ([video["id"] for video in page["data"]], page["has_more"]) == ([ids[0]], False)
    assert refusal(http.get("/v1/videos?limit=0"), 400)[1] == "limit"
    assert refusal(http.get("/v1/videos?order=up"), 400)[1] == "order"
    assert refusal(http.get("/v1/videos?after=nothing"), 404)[1] == "after"
    for name in "abc":
        add_subject(name)
    page = http.get("/v1/subjects", params={"limit": 2}).json()
    assert ([s["id"] for s in page["data"]], page["has_more"]) == (["a", "b"], True)
    page = http.get("/v1/subjects", params={"after": "b"}).json()
    assert [s["id"] for s in page["data"]] == ["c"]


def test_subjects_models_and_the_page(served: Served, add_subject: AddSubject) -> None:
    http = served.http
    folder = add_subject("mug")
    subject = http.get("/v1/subjects/mug").json()
    assert (subject["status"], subject["phrase"], subject["num_views"]) == ("ready", "sks mug", 1)
    assert (subject["views"], subject["scores"]) == (["/v1/subjects/mug/views/1"], None)
    found = Evidence(
        losses=(1.0,) * 9, seconds=1.0, best_step=5,
        judgements=(
            Judgement(step=0, loss=0.9, identity=0.1), Judgement(step=5, loss=0.5, identity=0.8),
        ),
    )  # fmt: skip
    write_evidence(folder, found, cost_share=1)
    scores = {"identity_before": 0.1, "identity": 0.8, "held_out_loss": 0.5}
    assert http.get("/v1/subjects/mug").json()["scores"] == scores
    (folder / "curve.json").write_text("{")
    assert http.get("/v1/subjects/mug").json()["scores"] is None
    assert http.get(subject["views"][0]).content.startswith(b"\x89PNG")
    assert refusal(http.get("/v1/subjects/mug/views/2"), 404)[0] == "view_not_found"
    assert refusal(http.get("/v1/subjects/..%2Fmug"), 404)[0] in ("subject_not_found", "not_found")
    model = http.get("/v1/models").json()["data"][0]
    assert (model["id"], model["default_size"]) == ("miniature", "32x32")
    assert http.get("/v1/models/miniature").json() == model
    assert refusal(http.get("/v1/models/other"), 404)[0] == "model_not_found"
    page = http.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("style.css", "app.js"):
        assert f"page/{name}" in page.text
        assert http.get(f"/page/{name}").status_code == 200
    assert "<script>" not in page.text
    assert " style=" not in page.text
    assert refusal(http.get("/page/secret"), 404)[0] == "not_found"
    assert refusal(http.get("/nowhere"), 404)[0] == "not_found"
    assert refusal(http.put("/v1/videos"), 405)[0] == "method_not_allowed"


def test_health_readiness_and_openapi(served: Served) -> None:
    assert served.http.get("/healthz").json() == {"status": "ok"}
    assert served.http.get("/readyz").status_code == 503
    served.engine.warm_up()
    assert served.http.get("/readyz").status_code == 200
    create = served.http.get("/openapi.json").json()["paths"]["/v1/videos"]["post"]
    assert set(create["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert "202" in create["responses"]


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """The official client against a real server on loopback, with the engine's threads running."""
    server = uvicorn.Server(uvicorn.Config(served.api, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    served.engine.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    server.should_exit = True
    thread.join()
    served.engine.stop(drain_s=5)


def test_the_openai_client_works_unmodified(client: openai.OpenAI, add_subject: AddSubject) -> None:
    add_subject("mug")
    extra = {"subject": "mug", "num_inference_steps": 2, "seed": 4, "metadata": {"a": "b"}}
    with warnings.catch_warnings():
        # The hosted service closed, so every method of the client is marked deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        video = client.videos.create(
            prompt="a [sks mug] on a desk", seconds="1", size="32x32", extra_body=extra
        )
        assert video.status in ("queued", "in_progress")
        video = client.videos.poll(video.id)
        assert (video.status, video.progress, video.seconds) == ("completed", 100, "1.125")
        assert video.model_extra is not None
        assert video.model_extra["metadata"] == {"a": "b"}
        with av.open(io.BytesIO(client.videos.download_content(video.id).read())) as container:
            assert len([np.asarray(f.to_image()) for f in container.decode(video=0)]) == 9
        png = client.videos.download_content(video.id, variant="thumbnail").read()
        assert Image.open(io.BytesIO(png)).size == (32, 32)
        other = client.videos.create_and_poll(
            prompt="a red car", extra_body={"num_inference_steps": 1}
        )
        again = client.videos.remix(video.id, prompt="a [sks mug] in snow")
        assert client.videos.poll(again.id).remixed_from_video_id == video.id
        assert client.videos.delete(again.id).deleted
        assert [v.id for v in client.videos.list(limit=1)] == [other.id, video.id]
        assert client.videos.retrieve(other.id).status == "completed"
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError, match="video_id must be"):
            client.videos.retrieve(video.id)
        with pytest.raises(openai.UnprocessableEntityError, match="multiples of 8"):
            client.videos.create(prompt="a red car", size="33x32")


def test_jobs_belong_to_the_owner_of_a_key(settings: ServeSettings, backbone: Backbone) -> None:
    served = Served(settings.model_copy(update={"require_keys": "always"}), backbone)
    table = KeyTable(settings.database_url)
    texts = [table.add(n, days=None, max_live=1, per_minute=600)[1] for n in ("ana", "bo")]
    ana, bo = ({"Authorization": f"Bearer {text}"} for text in texts)
    http = served.http
    assert refusal(http.get("/v1/videos"), 401)[0] == "missing_key"
    assert refusal(http.post("/v1/videos", json=CLIP), 401)[0] == "missing_key"
    job = http.post("/v1/videos", json=CLIP, headers=ana).json()["id"]
    assert refusal(http.post("/v1/videos", json=CLIP, headers=ana), 429)[0] == "quota_exceeded"
    assert http.get(f"/v1/videos/{job}", headers=ana).status_code == 200
    for method, path in (
        ("GET", ""), ("GET", "/content"), ("POST", "/cancel"), ("DELETE", ""),
    ):  # fmt: skip
        answer = http.request(method, f"/v1/videos/{job}{path}", headers=bo)
        assert refusal(answer, 404)[0] == "video_not_found"
    assert refusal(http.get(f"/v1/videos?after={job}", headers=bo), 404)[1] == "after"
    assert http.get("/v1/videos", headers=bo).json()["data"] == []
    assert len(http.get("/v1/videos", headers=ana).json()["data"]) == 1
