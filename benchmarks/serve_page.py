"""The page in a real browser: Debian's chromium, headless, driven by Playwright."""

import shutil
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from benchmarks.commands import LOG_FOLDER
from benchmarks.processes import wait_until
from benchmarks.rows import RowSkippedError
from benchmarks.serve_server import serving
from benchmarks.serve_subjects import add_subjects

_PATIENCE_MS = 240_000
_PHONE: ViewportSize = {"width": 390, "height": 844}


def steps_in_browser(seed: int) -> float:
    """Steps, of seven, that a person takes on the page; pictures go to runs/proof/page.

    Raises:
        RowSkippedError: chromium is missing.
    """
    if shutil.which("chromium") is None:
        raise RowSkippedError("chromium is not installed: apt-get install chromium")
    with serving("serve-page") as server:
        add_subjects(server.home, 2, seed=seed)
        return float(walk(server.url, LOG_FOLDER / "page"))


def walk(url: str, pictures: Path) -> int:
    """Pick, submit, watch, play, cancel, by keyboard alone where it matters; count what worked."""
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(_PATIENCE_MS)
        page.goto(url)
        steps = [_picks_a_subject(page)]
        steps.append(_submits_by_keyboard(page, num_steps=6))
        page.screenshot(path=pictures / "submitted.png")
        steps.append(_plays(page))
        page.screenshot(path=pictures / "completed.png")
        steps.append(_submits_by_keyboard(page, num_steps=100))
        steps.append(_cancels(page))
        page.set_viewport_size(_PHONE)
        page.screenshot(path=pictures / "phone.png", full_page=True)
        steps.append(bool(page.evaluate("document.body.scrollWidth <= window.innerWidth")))
        steps.append(not errors)
        browser.close()
    return sum(steps)


def _wait(page: Page, expression: str) -> None:
    """Wait for an expression; the page's policy forbids Playwright's own way, which is `eval`."""
    if not wait_until(lambda: bool(page.evaluate(expression)), seconds=_PATIENCE_MS / 1000):
        raise ChildProcessError(f"the page never came to {expression}")


def _picks_a_subject(page: Page) -> bool:
    page.wait_for_selector("#subject option:nth-child(3)", state="attached")
    page.select_option("#subject", "subject1")
    _wait(page, "document.querySelector('#views img')?.naturalWidth > 0")
    return "[sks mug]" in page.input_value("#prompt")


def _submits_by_keyboard(page: Page, *, num_steps: int) -> bool:
    before = page.locator("#clips li").count()
    page.focus("#steps")
    page.keyboard.press("Control+A")
    page.keyboard.type(str(num_steps))
    page.keyboard.press("Enter")
    _wait(page, f"document.querySelectorAll('#clips li').length > {before}")
    _wait(page, "document.querySelector('#clips li .status').textContent.length > 0")
    return bool(page.locator("#clips li .cancel").first.is_visible())


def _plays(page: Page) -> bool:
    page.wait_for_selector("#clips li[data-status=completed] video:not([hidden])")
    _wait(page, "document.querySelector('#clips video').readyState >= 2")
    page.evaluate("document.querySelector('#clips video').play()")
    _wait(page, "document.querySelector('#clips video').currentTime > 0")
    return True


def _cancels(page: Page) -> bool:
    page.locator("#clips li .cancel").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#clips li[data-status=canceled]")
    return True
