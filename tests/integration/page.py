"""A person at the operator's page, without a browser: what they see, and the forms they send."""

import re
from html import unescape
from typing import Any

import httpx

from tests.integration.stack import TOKEN, Stack


class Person:
    """A client that keeps cookies and sends no token; `form` is what the last page's forms send along."""

    def __init__(self, stack: Stack, **headers: str) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{stack.port}", headers=headers, timeout=30)
        self.form: dict[str, str] = {}

    def get(self, path: str, **query: Any) -> httpx.Response:
        """Open a page."""
        return self._saw(self.client.get(path, params=query or None))

    def post(self, path: str, **values: str) -> httpx.Response:
        """Send a form of the page that was seen last."""
        return self._saw(self.client.post(path, data=self.form | values))

    def sign_in(self, token: str = TOKEN, **values: str) -> httpx.Response:
        """Show a token; where it leads is opened."""
        answer = self.post("/sign-in", token=token, **values)
        return self.get(answer.headers["location"]) if answer.status_code == 303 else answer

    def _saw(self, answer: httpx.Response) -> httpx.Response:
        if found := re.search('name="csrf" value="([0-9a-f]+)"', answer.text):
            self.form = {"csrf": found[1]}
        return answer


def words(answer: httpx.Response) -> str:
    """What a person reads: the text without tags, its white space made one space each."""
    body = answer.text.partition("<main")[2].partition("</main>")[0].partition(">")[2]
    return " ".join(unescape(re.sub("<[^>]*>", " ", body)).split())
