"""The page, its events and its metrics over HTTP, for whoever knows the token.

Another site's script in the same browser must not read it: the host of every request is checked, since a name that resolves to
this machine (DNS rebinding) would make it of one origin; no other origin is allowed anything; the token stands in the path, and
what the page loads or links says nothing of where it came from. Nothing is changed by any request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedprivseg.study.watch.progress_now import OFTEN_S, Watcher
from fedprivseg.study.watch.prometheus import CONTENT_TYPE, metrics_text

MOST_WATCHING = 16
"""Streams of events at a time."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_FILES = {
    "": ("study/watch/watch_page.html", "text/html"),
    "watch.js": ("study/watch/watch.js", "text/javascript"),
    "watch.css": ("study/watch/watch.css", "text/css"),
    "sheet.css": ("core/pages/sheet.css", "text/css"),
    "icon.svg": ("study/watch/icon.svg", "image/svg+xml"),
}
"""What the page is made of: address below the token -> file of the package and its type."""


def web_app(watcher: Watcher, token: str, hosts: frozenset[str]) -> ASGIApp:
    """The application.

    Args:
        watcher: of the run.
        token: that the path of every request begins with; for ``/metrics`` it may be a bearer token instead.
        hosts: what a request may name as its host, with the port.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    watching = asyncio.Semaphore(MOST_WATCHING)

    def known(given: str) -> None:
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(404)

    def room() -> None:
        if watching.locked():
            raise HTTPException(503)

    def bearer(authorization: Annotated[str, Header()] = "") -> None:
        known(authorization.removeprefix("Bearer "))

    @app.get("/{given}/events", response_class=EventSourceResponse, dependencies=[Depends(known), Depends(room)])
    async def events() -> AsyncIterator[ServerSentEvent]:
        async with watching:
            shown = None
            while True:
                now = await asyncio.to_thread(watcher.now)
                if now != shown:
                    shown = now
                    yield ServerSentEvent(raw_data=now.model_dump_json())
                await asyncio.sleep(OFTEN_S)

    @app.get("/{given}/metrics", dependencies=[Depends(known)])
    @app.get("/metrics", dependencies=[Depends(bearer)])
    def metrics() -> Response:
        return Response(metrics_text(watcher.now()), media_type=CONTENT_TYPE)

    @app.get("/{given}/{name:path}", dependencies=[Depends(known)])
    def page(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        file, kind = _FILES[name]
        return Response((files("fedprivseg") / file).read_bytes(), media_type=kind)

    return _Guard(app, hosts)


class _Guard:
    """Lets through what was asked of this host, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = {host.encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                kept = [each for each in message["headers"] if each[0] not in dict(own)]
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        named = [value.lower() for name, value in scope["headers"] if name == b"host"]
        if scope["type"] == "http" and len(named) == 1 and named[0] in self._hosts:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "http":
            await PlainTextResponse("This server is known by its own address alone.\n", 421)(scope, receive, guarded)
