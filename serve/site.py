"""The page: static files without a build step, under a policy that allows nothing foreign."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from serve import schema
from serve.errors import ApiError

_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

site = APIRouter(include_in_schema=False)


@site.get("/")
def get_page() -> FileResponse:
    """Send the page."""
    return _page_file("index.html")


@site.get("/page/{name}")
def get_page_file(name: str) -> FileResponse:
    """Send the page's script or style."""
    return _page_file(name)


def _page_file(name: str) -> FileResponse:
    if name not in _PAGE_FILES:
        message = (
            f"page file must be one of {', '.join(_PAGE_FILES)}, got {schema.shown(name)}; see /"
        )
        raise ApiError(404, "not_found", message)
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return FileResponse(_PAGE / name, media_type=_PAGE_FILES[name], headers=headers)
