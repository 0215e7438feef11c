"""Start the page: on this machine alone unless told otherwise, and without a word to anybody else."""

import logging
import socket
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.page import ASSETS, Page, theme
from csmae_hf.app.uploads import MOST_BYTES

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

OWN_NAMES = ("localhost", "127.0.0.1", "::1")
"""What this machine calls itself."""

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; form-action 'self'; object-src 'none'; base-uri 'self'"
)
"""What the browser may fetch: from this server and nowhere else."""


class OnlyFromHere:
    """Sends `POLICY` with every answer, so that even a mistake of ours, or of gradio's, fetches nothing from elsewhere.

    Where `names` are given, only requests to one of them are answered: a website whose name was made to lead to this machine (DNS
    rebinding) is not.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str] | None = None):
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self.names is not None and scope["type"] in ("http", "websocket"):
            asked = Headers(scope=scope).get("host", "")
            if _host_name(asked) not in self.names:
                text = (
                    f"This page answers as {', '.join(self.names)} only, not as {asked[:100]!r}. To serve it to others, or behind "
                    "another server: csmae serve --host ADDRESS (0.0.0.0 for every address of this machine).\n"
                )
                await PlainTextResponse(text, status_code=403)(scope, receive, send)
                return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, receive, with_policy)


def _host_name(header: str) -> str | None:
    """The name in a Host header, without the port; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _refuse_taken(host: str, port: int) -> None:
    """Try a port before the page is made: gradio's own message names what nobody typed."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"The page cannot be served at {host}, port {port}: {error}. Choose another port by --port (port= in Python), or leave it "
            "out for the first free one from 7860."
        ) from error


def start(explorer: Explorer, *, host: str = LOOPBACK, port: int | None = None, block: bool = True) -> tuple[Page, str]:
    """Serve the page.

    Args:
        explorer: What is shown.
        host: Address to listen on; the default is reachable from this machine alone, and answers to no other name of it.
        port: Where; default the first free one from 7860.
        block: Whether to return only when the server ends.

    Returns:
        The page, and its address.

    Raises:
        ValueError: If the port is taken, or the address is none of this machine.
    """
    if port is not None:
        _refuse_taken(host, port)
    page = Page(explorer)
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    _, address, _ = page.blocks.launch(
        prevent_thread_lock=True,
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        max_file_size=MOST_BYTES,
        theme=theme(),
        # Not as gradio's `css`, which takes selectors apart at every comma.
        head=f"<style>{style}</style><script>{script}</script>",
        app_kwargs={"middleware": [Middleware(OnlyFromHere, names=OWN_NAMES if host in OWN_NAMES else None)]},
    )
    threading.Thread(target=explorer.warm, daemon=True).start()
    logger.info("Explorer: %s (end it with Ctrl+C)", address)
    if block:
        page.blocks.block_thread()
    return page, address
