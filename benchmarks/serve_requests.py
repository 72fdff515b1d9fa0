"""Requests that must be refused, each with its documented code and a sentence."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, field

import httpx
from PIL import Image

from benchmarks.commands import scratch_folder
from benchmarks.serve_server import Server
from benchmarks.serve_subjects import add_subjects
from serve.keys import KeyTable
from serve.settings import ServeSettings

_CLIP = {"prompt": "a red car"}
_STRANGER = "video_" + "0" * 32


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One request and how it is to be refused."""

    name: str
    status: int
    code: str
    method: str = "POST"
    path: str = "/v1/videos"
    sent: dict[str, object] = field(default_factory=dict)


def num_wrongly_answered(seed: int) -> float:
    """Bad requests that are not refused as documented, or that say a local path.

    The server listens on every address of this machine, so that keys are asked for.
    """
    with scratch_folder() as home:
        add_subjects(home, 1, seed=seed)
        settings = ServeSettings(runs=str(home))
        keys = KeyTable(settings.database_url)
        limits = {"max_live": 100, "per_minute": 60_000}
        good, other = (keys.add(n, days=None, **limits)[1] for n in ("ana", "bo"))
        expired = keys.add("ana", days=-1, **limits)[1]
        server = Server(home=home, settings={}, log="serve-bad-input", host="0.0.0.0")
        server.start()
        try:
            server.wait_ready()
            return float(_count_wrong(server.url, good, other, expired, str(home)))
        finally:
            server.stop()


def _count_wrong(url: str, good: str, other: str, expired: str, home: str) -> int:
    wrong = 0
    with httpx.Client(base_url=url, headers=_bearer(good), timeout=60) as http:
        others = http.post("/v1/videos", json=_CLIP, headers=_bearer(other)).json()["id"]
        for bad in (*_fields(), *_uploads(), *_ids(others), *_keys(expired)):
            answer = http.request(bad.method, bad.path, **bad.sent)  # type: ignore[arg-type]
            if not _is_right(bad, answer, home):
                wrong += 1
                print(f"{bad.name}: {answer.status_code} {answer.text[:200]}", flush=True)
        if http.get("/v1/videos").json()["data"]:
            wrong += 1
    return wrong


def _is_right(bad: Bad, answer: httpx.Response, home: str) -> bool:
    if answer.status_code != bad.status or home in answer.text:
        return False
    error = answer.json()["error"]
    has_sentence = " must " in error["message"] and ", got " in error["message"]
    return bool(error["code"] == bad.code and has_sentence)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _json(name: str, status: int, code: str, **fields: object) -> Bad:
    return Bad(name=name, status=status, code=code, sent={"json": _CLIP | fields})


def _fields() -> tuple[Bad, ...]:
    return (
        _json("a number as prompt", 400, "invalid_value", prompt=7),
        _json("a list as prompt", 400, "invalid_value", prompt=["a"]),
        _json("a huge prompt", 400, "invalid_value", prompt="x" * 100_000),
        _json("an empty prompt", 400, "invalid_value", prompt="  "),
        _json("text as seed", 400, "invalid_value", seed="seven"),
        _json("a truth as frames", 400, "invalid_value", num_frames=True),
        _json("infinite guidance", 400, "invalid_value", guidance_scale="inf"),
        _json("an unknown field", 400, "invalid_value", lora="x"),
        _json("4n+2 frames", 422, "shape_not_allowed", num_frames=6),
        _json("an odd size", 422, "shape_not_allowed", size="65x63"),
        _json("a giant size", 422, "shape_not_allowed", size="9600x9600"),
        _json("a million steps", 422, "shape_not_allowed", num_inference_steps=10**6),
        _json("a foreign bracket", 400, "invalid_prompt", prompt="a [sks dog]"),
        Bad(name="broken JSON", status=400, code="invalid_value",
            sent={"content": b"{", "headers": {"Content-Type": "application/json"}}),
        Bad(name="deep JSON", status=400, code="invalid_value",
            sent={"content": b"[" * 99_999, "headers": {"Content-Type": "application/json"}}),
        Bad(name="a huge body", status=413, code="body_too_large",
            sent={"content": b"x" * 2**21, "headers": {"Content-Type": "application/json"}}),
        Bad(name="a long idempotency key", status=400, code="invalid_value",
            sent={"json": _CLIP, "headers": {"Idempotency-Key": "k" * 300}}),
    )  # fmt: skip


def _ids(others: str) -> tuple[Bad, ...]:
    paths = ("..%2f..%2fetc%2fpasswd", "video_" + "A" * 32, "x" * 500, "%00")
    strange = tuple(
        Bad(name=f"id {path[:30]}", status=404, method="GET", path=f"/v1/videos/{path}",
            code="not_found" if "%2f" in path else "video_not_found")
        for path in paths
    )  # fmt: skip
    foreign = tuple(
        Bad(name=f"somebody else's job, {method} {tail}", status=404, code="video_not_found",
            method=method, path=f"/v1/videos/{others}{tail}")
        for method, tail in (("GET", ""), ("GET", "/content"), ("POST", "/cancel"), ("DELETE", ""))
    )  # fmt: skip
    return (
        *strange,
        *foreign,
        Bad(name="an unknown job", status=404, code="video_not_found", method="GET",
            path=f"/v1/videos/{_STRANGER}"),
        Bad(name="a path as subject", status=404, code="subject_not_found",
            sent={"json": _CLIP | {"subject": "../../etc/passwd"}}),
        Bad(name="a URL as subject", status=404, code="subject_not_found",
            sent={"json": _CLIP | {"subject": "http://127.0.0.1/x"}}),
        Bad(name="an unknown model", status=404, code="model_not_found",
            sent={"json": _CLIP | {"model": "/etc/passwd"}}),
    )  # fmt: skip


def _keys(expired: str) -> tuple[Bad, ...]:
    def header(text: str) -> dict[str, object]:
        return {"headers": {"Authorization": text}, "json": _CLIP}

    return (
        Bad(name="no key", status=401, code="missing_key", sent=header("")),
        Bad(name="a wrong key", status=401, code="invalid_key", sent=header("Bearer d3d_0_x")),
        Bad(name="an expired key", status=401, code="expired_key",
            sent=header(f"Bearer {expired}")),
    )  # fmt: skip


def _upload(name: str, status: int, code: str, *pictures: bytes) -> Bad:
    files = [("images[]", (f"{number}.png", data)) for number, data in enumerate(pictures)]
    sent: dict[str, object] = {"files": files, "data": {"class_noun": "mug"}}
    return Bad(name=name, status=status, code=code, path="/v1/subjects", sent=sent)


def _uploads() -> tuple[Bad, ...]:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    return (
        _upload("a 500-megapixel PNG", 413, "image_too_large", _png_header(22_361)),
        _upload("a zip bomb", 415, "not_an_image", _zip_bomb()),
        _upload("an SVG", 415, "not_an_image", svg),
        _upload("a polyglot that starts as GIF", 415, "not_an_image", b"GIF89a/*" + svg),
        _upload("half a JPEG", 415, "not_an_image", _jpeg()[:200]),
        _upload("an empty file", 415, "not_an_image", b""),
        _upload("a file of 17 MiB", 413, "upload_too_large", b"x" * (17 * 2**20)),
        _upload("33 pictures", 413, "upload_too_large", *[_jpeg()] * 33),
    )


def _png_header(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def _zip_bomb() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**26))
    return data.getvalue()


def _jpeg() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, format="JPEG")
    return data.getvalue()
