"""Who asks: API keys, their rate, and what a browser on this machine may be tricked into.

Three modes. With `keys` every call of `/v1` needs a valid bearer key. On `loopback` anybody on this
machine may ask, but not a foreign web page through somebody's browser. `open` asks for nothing.
"""

import ipaddress
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal
from urllib.parse import urlsplit

from serve.errors import ApiError
from serve.keys import ApiKey, KeyTable

Mode = Literal["keys", "loopback", "open"]
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_BURST_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose jobs and subjects are meant; `max_live` unfinished jobs, None for any number."""

    owner: str = ""
    max_live: int | None = None


class Access:
    """Admits requests.

    Args:
        mode: see above.
        keys: the table of keys.
        clock: monotonic seconds.
    """

    def __init__(
        self, mode: Mode, keys: KeyTable, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._mode = mode
        self._keys = keys
        self._rates = _Rates(clock)

    def admit(self, method: str, headers: Mapping[str, str]) -> Caller:
        """Say who asks, or refuse with 401, 403 or 429."""
        if self._mode == "loopback":
            _refuse_foreign_names(headers)
        if method not in _SAFE_METHODS:
            _refuse_foreign_pages(headers)
        if self._mode != "keys":
            return Caller()
        key = self._find(headers.get("authorization", ""))
        wait_s = self._rates.wait_s(key)
        if wait_s > 0:
            raise ApiError(
                429,
                "rate_limited",
                f"a key must send at most {key.per_minute} requests a minute and "
                f"{_burst(key):.0f} at once, got more; wait",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        return Caller(owner=key.owner, max_live=key.max_live)

    def _find(self, header: str) -> ApiKey:
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            raise _refuse_key("missing_key", "none", "ask the operator for one")
        key = self._keys.find(text.strip())
        if key is None or key.is_revoked:
            raise _refuse_key("invalid_key", "an unknown or revoked one", "ask for a new one")
        if self._keys.is_over(key):
            raise _refuse_key("expired_key", "an expired one", "ask for a new one")
        return key


class _Rates:
    """A bucket of requests for each key; it holds those of ten seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, key: ApiKey) -> float:
        """Take one request from the bucket, or say how long it stays empty."""
        a_second = key.per_minute / 60
        most = _burst(key)
        with self._lock:
            now = self._clock()
            left, at = self._left.get(key.id, (most, now))
            left = min(most, left + (now - at) * a_second)
            is_admitted = left >= 1
            self._left[key.id] = (left - 1 if is_admitted else left, now)
        return 0.0 if is_admitted else (1 - left) / a_second


def _burst(key: ApiKey) -> float:
    return max(1.0, key.per_minute / 60 * _BURST_S)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_key(code: str, found: str, advice: str) -> ApiError:
    message = f"Authorization must be `Bearer <key>` with a valid key, got {found}; {advice}"
    return ApiError(401, code, message, param="Authorization", headers=_CHALLENGE)


def _refuse_foreign_names(headers: Mapping[str, str]) -> None:
    """A name that somebody else points at this machine is no loopback (DNS rebinding)."""
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise ApiError(
            403,
            "foreign_host",
            "Host must name this machine's loopback where keys are off, got another name; "
            "use 127.0.0.1, or set require_keys to always",
            param="Host",
        )


def _refuse_foreign_pages(headers: Mapping[str, str]) -> None:
    """Browsers send forms to other sites without asking; they say from where."""
    origin = headers.get("origin")
    if origin is None:
        return
    try:
        is_ours = urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        is_ours = False
    if not is_ours:
        raise ApiError(
            403,
            "foreign_origin",
            "Origin must be this server, got another page's; send the request without a browser",
            param="Origin",
        )
