"""A vision-language model as a judge of identity: shape, colour, detail, overall.

The four axes of the paper's judge, asked of any server with OpenAI's chat completions (vLLM,
llama.cpp, a hosted one). The answer must be numbers: anything else is an error that shows it.
"""

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.image import flatten
from dreambooth3d.errors import ConfigError, RunError

AXES = ("shape", "colour", "detail", "overall")
_LEAST, _MOST = 1.0, 5.0
_SIDE = 512
_LONGEST_ANSWER = 1_000_000
_QUESTION = (
    "The first {views} pictures show one object, alone on white, from several sides. The last "
    "{frames} are frames of a video that should show this very object. Ignore background, hands "
    "and camera. Judge how well the object in the frames is the object in the pictures, from 1 "
    "(another object) to 5 (the same one): its shape, its colour, its detail (print, texture, "
    "small parts), and overall. Answer with JSON alone: "
    '{{"shape": 1-5, "colour": 1-5, "detail": 1-5, "overall": 1-5}}'
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Grades from 1 (another object) to 5 (the same one)."""

    shape: float
    colour: float
    detail: float
    overall: float


class Judge(Protocol):
    """Grades a clip's frames against views of the subject."""

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], views: Sequence[Image.Image]
    ) -> Verdict:
        """Grade frames (H, W, 3) against views on white.

        Raises:
            RunError: the judge did not answer, or not with grades.
        """


@dataclass(frozen=True, kw_only=True)
class ChatJudge:
    """A judge behind an OpenAI-compatible endpoint.

    Attributes:
        url: up to and without ``/chat/completions``, as in ``http://localhost:8000/v1``.
        model: as the server calls it.
        key: sent as a bearer token where it is not empty; never shown.
        timeout_seconds: for one answer.
    """

    url: str
    model: str
    key: str = ""
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the address."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"judge url must start with http:// or https://, got {self.url!r}; "
                "write it as in http://localhost:8000/v1"
            )
        if not self.model:
            raise ConfigError("judge model must be named, got ''; use a name the server lists")
        if not self.timeout_seconds > 0:
            raise ConfigError(
                f"timeout_seconds must be above 0, got {self.timeout_seconds}; use 120"
            )

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"ChatJudge(url={self.url!r}, model={self.model!r})"

    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], views: Sequence[Image.Image]
    ) -> Verdict:
        """Ask once, at temperature 0."""
        pictures = [*map(flatten, views), *map(Image.fromarray, frames)]
        question = _QUESTION.format(views=len(views), frames=len(frames))
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        content += [{"type": "image_url", "image_url": {"url": _as_uri(p)}} for p in pictures]
        body = {
            "model": self.model,
            "temperature": 0,
            "messages": [{"role": "user", "content": content}],
        }
        return _verdict(self._post(json.dumps(body).encode()))

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", data=body, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                found: bytes = answer.read(_LONGEST_ANSWER)
        except urllib.error.HTTPError as error:
            said = error.read(200).decode("utf-8", "replace")
            raise RunError(
                f"judge must answer, got status {error.code} from {self.url} ({said}); "
                "check the address, the model's name and the key"
            ) from error
        except (OSError, HTTPException) as error:
            raise RunError(
                f"judge must answer, got nothing from {self.url} ({error}); "
                "start the server or leave the judge out"
            ) from error
        return found


def _as_uri(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _verdict(answer: bytes) -> Verdict:
    try:
        said = json.loads(answer)["choices"][0]["message"]["content"]
        grades = json.loads(said[said.index("{") : said.rindex("}") + 1])
        found = {axis: float(grades[axis]) for axis in AXES}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise RunError(
            f"judge must answer with grades for {', '.join(AXES)}, got {answer[:200]!r}; "
            "use a model that follows instructions"
        ) from error
    wrong = {axis: grade for axis, grade in found.items() if not _LEAST <= grade <= _MOST}
    if wrong:
        raise RunError(
            f"judge must give grades from {_LEAST:g} to {_MOST:g}, got {wrong}; "
            "use a model that follows instructions"
        )
    return Verdict(**found)
