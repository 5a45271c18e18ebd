"""What a browser may call the server."""

import asyncio
import socket

from thermodl.viewer import asgi


def _status(origin, hosts):
    sent = []

    async def app(scope, receive, send):  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"origin", origin.encode())]}
    asyncio.run(asgi.Guard(app, hosts)(scope, None, send))
    return sent[0]["status"]


def test_a_name_with_capitals_is_its_own_origin():
    """Browsers write it in lower-case letters."""
    hosts = asgi.names_of("MyBox.local")
    assert _status("http://mybox.local:8501", hosts) == 200
    assert _status("http://evil.example", hosts) == 403


def test_a_server_on_all_addresses_answers_to_that_of_the_network_and_its_name(monkeypatch):
    """On Debian a computer's own name stands for 127.0.1.1, by which nobody else reaches it."""
    monkeypatch.setattr(socket, "gethostname", lambda: "MyBox")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    monkeypatch.setattr(socket, "socket", _Routed)
    hosts = asgi.names_of("0.0.0.0")
    assert {"mybox", "192.168.7.5", "localhost", "127.0.0.1"} <= set(hosts)
    monkeypatch.setattr(_Routed, "connect", _unreachable)
    assert "127.0.0.1" in asgi.names_of("0.0.0.0")
    assert asgi.names_of("127.0.0.1") == ["127.0.0.1", "localhost"]


class _Routed:
    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, address):
        pass

    def getsockname(self):
        return "192.168.7.5", 40000


def _unreachable(*_):
    raise OSError("network is unreachable")
