"""The system's Chromium: a tab that remembers every complaint, and what axe-core finds in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
REPORT = "document.addEventListener('securitypolicyviolation', e => console.error('CSP: ' + e.violatedDirective))"


def found() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A running one, without a window."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        try:
            yield made
        finally:
            made.close()


class Tab:
    """One tab of a profile of its own. `complaints`: what the console, scripts and the policy said against a page."""

    def __init__(self, chromium: Browser, port: int, **options: Any) -> None:
        self.context: BrowserContext = chromium.new_context(base_url=f"http://127.0.0.1:{port}", **options)
        self.context.set_default_timeout(10_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.add_init_script(REPORT)
        self.page.on("console", lambda told: self._hear(told.type, told.text))
        self.page.on("pageerror", lambda error: self._hear("error", str(error)))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {text}")

    def open(self, path: str) -> None:
        """Go to an address."""
        self.page.goto(path)

    def sign_in(self, token: str) -> None:
        """As a person does."""
        self.show(token)
        self.page.get_by_role("button", name="Sign out").wait_for()

    def show(self, token: str) -> None:
        """Sign in, wherever it leads."""
        self.page.get_by_label("Token").fill(token)
        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Sign in").click()

    def text(self) -> str:
        """What is to be read on the page."""
        return self.page.inner_text("main")

    def findings(self) -> list[str]:
        """What axe-core calls serious or critical: rule, and the elements."""
        violations = Axe().run(self.page).response["violations"]
        serious = [found for found in violations if found["impact"] in ("serious", "critical")]
        return [f"{found['id']}: {[node['html'] for node in found['nodes']][:3]}" for found in serious]
