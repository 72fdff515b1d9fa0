"""The one form of every refusal: `{"error": {"code", "message", "param"}}`."""

from collections.abc import Mapping

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """What went wrong: a code for programs, a sentence for people, the field it is about."""

    code: str
    message: str
    param: str | None = None


class ErrorReply(BaseModel):
    """Every answer of 400 and above."""

    error: ErrorBody


class ApiError(Exception):
    """A request is refused.

    Args:
        status: HTTP status.
        code: stable word for programs.
        message: one sentence; never a local path.
        param: the field, header or path part it is about.
        headers: such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reply = ErrorReply(error=ErrorBody(code=code, message=message, param=param))
        self.headers = dict(headers or {})
