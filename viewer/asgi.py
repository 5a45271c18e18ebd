"""The web server: the Streamlit script behind checks of host and origin, and with strict headers.

Streamlit by itself listens on all interfaces, answers any Host header over HTTP and sends no content policy. A page on
the Internet could reach such a server through the reader's own browser (DNS rebinding).
"""

import asyncio
import os
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import streamlit as st
import uvicorn
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.web import bootstrap

from .cli import LANG
from .text import Text

_MISTAKE = Text("This page cannot be shown; the terminal says why.", "这一页无法显示，详情见终端。")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' {sockets}; worker-src 'self' blob:; "
    "frame-ancestors 'none'; object-src 'none'; base-uri 'self'"
)
_NEVER_PAGES = (b"text/javascript", b"application/javascript", b"text/css", b"font/")
_NOT_SNIFFED = (b"x-content-type-options", b"nosniff")


class Guard:
    """Refuse requests sent by pages of other sites, and add the security headers.

    What a page may do is said with all that could be one, not again with each of the hundred scripts that it loads:
    that would be 50 kB of a first visit.
    """

    def __init__(self, app: ASGIApp, hosts: list[str]):
        self.app = app
        self.hosts = hosts
        policy = _POLICY.format(sockets=" ".join(f"ws://{host}:*" for host in hosts))
        self.of_pages = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        origin = dict(scope.get("headers", [])).get(b"origin", b"").decode("latin-1")
        if origin and _hostname(origin) not in self.hosts:
            await _refuse(scope, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                part = dict(message["headers"]).get(b"content-type", b"").startswith(_NEVER_PAGES)
                message["headers"] = [*message["headers"], _NOT_SNIFFED, *([] if part else self.of_pages)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _hostname(origin: str) -> str:
    try:
        name = urlsplit(origin).hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"foreign origin"})


def settings(host: str, port: int, hosts: list[str]) -> dict[str, object]:
    """Streamlit's options; given as flags, they win over any configuration file of the user."""
    return {
        "server_address": host,
        "server_port": port,
        "server_headless": True,
        "server_allowedHosts": hosts,
        "server_maxUploadSize": 1,
        "server_maxMessageSize": 50,
        "server_fileWatcherType": "none",
        "server_showEmailPrompt": False,
        "server_enableStaticServing": False,
        "browser_gatherUsageStats": False,
        "client_showErrorDetails": "type",
        "client_toolbarMode": "viewer",
        "runner_magicEnabled": False,
    }


def names_of(host: str) -> list[str]:
    """What a browser may call the server that listens on `host`: in lower-case letters, as browsers write it."""
    names = {host, "localhost", "127.0.0.1"}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname(), _own_address()}
    return sorted(_bracketed(name).lower() for name in names)


def serve(listener: socket.socket, host: str, announce: Callable[[], None]) -> None:
    """Serve on a socket that is bound already, until Ctrl-C; `announce` is called when pages can be opened."""
    hosts = names_of(host)
    bootstrap.load_config_options(settings(host, listener.getsockname()[1], hosts))
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(Guard, hosts=hosts),
        # A first visit loads 5 MB of scripts.
        Middleware(GZipMiddleware),
    ]
    app = st.App(Path(__file__).parent / "pages" / "start.py", middleware=guards, on_script_error=_say_so)
    # Open pages hold a WebSocket; without the limit, Ctrl-C would wait for the last tab to close.
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=1, ws_max_size=2**20, server_header=False
    )
    server = _Server(config)
    server.announce = announce
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    announce: Callable[[], None]
    imports: asyncio.Task[ModuleType]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announce()
            # Half a second of imports, for which the first page would wait; meanwhile the browser loads its scripts.
            self.imports = asyncio.create_task(asyncio.to_thread(import_module, "thermodl.viewer.app"))


def _say_so(error: Exception) -> bool:
    """A mistake of ours costs the reader one sentence; the traceback goes to the terminal."""
    traceback.print_exception(error, file=sys.stderr)
    lang = st.session_state.get("lang") or os.environ.get(LANG, "en")
    st.error(f"{_MISTAKE(lang)} ({type(error).__name__})")
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """The address on the network by which others reach this computer; its own name may stand for 127.0.1.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            # To an address that nobody has: the system chooses the way, and nothing is sent.
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(unsent.getsockname()[0])
