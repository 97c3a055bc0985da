"""A browser without a window: keeps cookies, follows nothing, sends forms as a browser does. And the console of a home, signed in."""

import asyncio
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.applications import Starlette

from serving.console import accounts
from serving.console.routes import Console
from serving.hub.seams import Seams
from troth.clock import Clock
from troth.home import Home

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ADDRESS = "http://127.0.0.1:8400"
PASSWORD = "tents and lanterns in march"


class Browser:
    """Asks an app page by page; `shown` is the page it is on."""

    def __init__(self, app: Starlette, address: str = ADDRESS) -> None:
        self.app, self.address, self.cookies = app, address, httpx.Cookies()
        self.shown = httpx.Response(204)

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(
                transport=transport, base_url=self.address, cookies=self.cookies, follow_redirects=False
            ) as client:
                answer = await client.request(method, path, **content)
                self.cookies = client.cookies
                return answer

        self.shown = asyncio.run(ask())
        return self.shown

    def get(self, path: str, **content: Any) -> httpx.Response:
        return self.request("GET", path, **content)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.request("POST", path, **content)

    def enter(self, name: str = "ada", password: str = PASSWORD, **more: str) -> int:
        return self.post("/console/sign-in", data={"name": name, "password": password, **more}).status_code

    def token(self, path: str = "/console/you") -> str:
        """The token that forms of this session carry."""
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None
        return found[1]

    def send(self, path: str, **form: str) -> httpx.Response:
        """A form of ours, with its token."""
        return self.post(path, data={"form": self.token(), **form}, headers={"origin": self.address})

    def text(self) -> str:
        """What a person reads of the page it is on."""
        reader = _Text()
        reader.feed(self.shown.text)
        return " ".join(" ".join(reader.said).split())


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def open_console(
    home: Home, clock: Clock, *roles: str, wall: Clock | None = None, seams: Seams | None = None
) -> Browser:
    """The console of a home, where ada is signed in with these roles. Close `console` where files must be free."""
    console = Console(home, clock, wall, seams)
    browser = Browser(Starlette(routes=console.routes()))
    if roles:
        accounts.add(home, "ada", roles, AT, PASSWORD)
        assert browser.enter() == 303
    return browser
