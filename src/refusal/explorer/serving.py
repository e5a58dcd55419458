"""Serving the page: on this machine only, or elsewhere behind a password; and the page reaches no host but its own."""

import base64
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from refusal.config import BUNDLED
from refusal.errors import BadSetting, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# gradio needs scripts and styles in its page, and `eval` for its templates; nothing needs another host.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; frame-ancestors 'self'; form-action 'self'"
)
# What gradio serves beside its page, and this page has no use for: files of anybody's, and the list of its functions.
NOT_SERVED = ("/openapi.json", "/gradio_api/openapi.json", "/gradio_api/upload", "/upload")


def explore(
    folder: Path | None,
    *,
    model: str,
    records: bool,
    host: str,
    port: int,
    password: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve the explorer of a run folder until it is interrupted; without one, of a model whose direction is found.

    Raises BadSetting for an address that others can reach without a password, or settings that contradict each other,
    Unavailable without the package gradio or when the port is taken, and the errors of opening a run.
    """
    check_address(host, password)
    if folder is not None and model:
        raise BadSetting("A run folder names its own model. Give RUN or --model, not both.")
    if folder is None and records:
        raise BadSetting("--records shows what a run recorded. Give its folder.")
    quiet_gradio()
    from refusal.explorer import opening, page

    with listen(host, port) as listening:
        if folder is None:
            folder = opening.find_run(model or BUNDLED, say=say)
        subject = opening.open_run(folder, live=not records, say=say)
        if subject.note:
            say(f"Only what was recorded is shown: {subject.note}")
        app = page.application(subject)
        url = f"http://{_bracketed(host)}:{listening.getsockname()[1]}"
        say(f"Explorer: {url} (Ctrl-C ends it)")
        serve(guard(app, public=not is_loopback(host), password=password), listening)


def quiet_gradio() -> None:
    """Tell gradio to call nobody. Raises Unavailable when it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise Unavailable('The explorer needs the package gradio: pip install "refusal[explorer]"') from error


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(host: str, password: str | None) -> None:
    """Raise BadSetting for an address that others can reach and that no password guards."""
    if password is not None and not password:
        raise BadSetting("The password is empty. Give one, or leave --password out.")
    if not is_loopback(host) and password is None:
        raise BadSetting(
            f"{host} can be reached from other machines, and the explorer runs the model and writes files for whoever "
            "opens it. Give --password, or leave --host at 127.0.0.1 (and tunnel to it: ssh -L)."
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raises Unavailable when it is taken or is not this machine's.

    Raises BadSetting for a port that cannot be.
    """
    if not 0 <= port <= 65535:
        raise BadSetting(f"There is no port {port}. Give one from 1 to 65535, or 0 for any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Unavailable(f"Cannot listen at {host}, port {port}: {error}. Give another --port or --host.") from error


def guard(app: App, *, public: bool, password: str | None) -> App:
    """Put the rules before an app: who may ask, from which page, and that answers load nothing from elsewhere.

    Off a loopback address only names of this machine are answered, so that no web page can reach the explorer by
    pointing a name of its own there; and a request made by another page is refused. The password is of HTTP's basic
    kind, with any user name.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # gradio asks by plain requests
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not public and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return await _refuse(send, 403, "This explorer is for its own machine: open it as 127.0.0.1.")
        if "origin" in headers and urlsplit(headers["origin"]).netloc != host:
            return await _refuse(send, 403, "This request comes from another page.")
        if scope["path"].rstrip("/") in NOT_SERVED:
            return await _refuse(send, 404, "There is no such page here.")
        if password is not None and not _knows(headers.get("authorization", ""), password):
            asking = (b"www-authenticate", b'Basic realm="refusal", charset="UTF-8"')
            return await _refuse(send, 401, "The password of this explorer, with any user name.", asking)

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        return await app(scope, receive, with_policy)

    return guarded


def serve(app: App, listening: socket.socket) -> None:
    """Serve an app until it is interrupted or terminated, which is how it is meant to end."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").disabled = True  # that open tabs are cut off now is no error
            await super().shutdown(sockets)

    with suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listening])


def _knows(given: str, password: str) -> bool:
    kind, _, encoded = given.partition(" ")
    try:
        said = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:
        return False
    return kind.lower() == "basic" and secrets.compare_digest(said, password.encode())


async def _refuse(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
    await send({"type": "http.response.body", "body": text.encode()})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
