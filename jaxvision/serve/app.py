"""The service behind HTTP: a page, and JSON. What is wrong is a sentence, `{"error": "..."}`.

| request | answers |
|---|---|
| `GET /` | the page |
| `GET /about` | what the network is and what it offers; `ready` says whether it is compiled |
| `POST /predict`, the bytes of a photograph | see `Service.predict` |
| `POST /look?class=NAME`, the bytes of a photograph | see `Service.look` |
| `POST /sample`, JSON | see `Service.sample` |

Photographs stay in memory. One thread asks the network, in turn; a few requests wait for it, more
are refused. A page elsewhere can neither ask (`Origin`) nor be taken for this one (`Host`).
"""

import asyncio
import contextlib
import ipaddress
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxvision.errors import UserError
from jaxvision.serve.encoding import without_places
from jaxvision.serve.service import Service

LIMIT = 20_000_000  # bytes of a photograph
WAITING = 8  # requests at the network, the one under way among them
UPLOAD_SECONDS, ANSWER_SECONDS = 60, 300
_JSON_LIMIT = 65_536
_DISCARDED = 4  # limits that are read of a body that is too large, so that the answer arrives

LOCAL = ("127.0.0.1", "localhost", "::1")
ANY_ADDRESS = "*"  # in names of hosts: every address of digits, which no other site can be given

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_FILES = {
    "/": ("jaxvision.serve", "page.html"),
    "/report.css": ("jaxvision.report", "report.css"),
    **{
        f"/{name}": ("jaxvision.serve", name)
        for name in ("serve.css", "serve.js", "page.js", "drawing.js", "camera.js", "samples.js")
    },
}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

logger = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not answered; says with which status, and why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Worker:
    """One thread that does what is asked, in turn.

    Args:
      waiting: how many may be there at a time, the one under way among them.
    """

    def __init__(self, waiting: int = WAITING):
        self._executor = ThreadPoolExecutor(1, "network")
        self._lock, self._most, self._there = threading.Lock(), waiting, 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Does it when its turn comes.

        Raises:
          Refused: too many are waiting.
        """
        with self._lock:
            if self._there >= self._most:
                raise Refused(503, "Too many requests are waiting; try again in a moment.")
            self._there += 1
        future = self._executor.submit(function, *arguments)
        future.add_done_callback(self._left)
        return future

    def _left(self, future: Future[Any]) -> None:
        with self._lock:
            self._there -= 1

    def close(self) -> None:
        """Ends after what is under way; what waits is not begun."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def create(
    service: Service,
    worker: Worker,
    ready: Callable[[], bool] = lambda: True,
    hosts: Collection[str] = LOCAL,
    limit: int = LIMIT,
    seconds: float = ANSWER_SECONDS,
) -> Starlette:
    """The application.

    Args:
      service: answers.
      worker: in whose thread.
      ready: whether the network is compiled.
      hosts: names under which the page may be asked for, perhaps `ANY_ADDRESS`.
      limit: bytes of an upload.
      seconds: that an answer may take, waiting among them.
    """

    async def answer(request: Request, function: Callable[..., Any], *arguments: Any) -> Response:
        future = worker.submit(function, *arguments)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise Refused(504, f"There was no answer within {seconds:g} seconds.") from None
        except UserError as error:
            raise Refused(422, without_places(str(error))) from error
        return _json(found)

    async def about(request: Request) -> Response:
        if not ready():
            return _json({"name": service.name, "ready": False})
        return _json({**service.about(), "limit": limit, "ready": True})

    async def predict(request: Request) -> Response:
        return await answer(request, service.predict, await _body(request, limit))

    async def look(request: Request) -> Response:
        name = request.query_params.get("class", "")
        return await answer(request, service.look, await _body(request, limit), name)

    async def sample(request: Request) -> Response:
        try:
            asked = json.loads(await _body(request, _JSON_LIMIT) or b"{}")
        except (ValueError, RecursionError):
            raise Refused(400, "What is asked of samples is JSON.") from None
        if not isinstance(asked, dict):
            raise Refused(400, "What is asked of samples is an object of JSON.")
        return await answer(request, service.sample, asked)

    routes = [Route(path, _file(*place)) for path, place in _FILES.items()]
    routes.append(Route("/about", _guarded(about)))
    for path, function in (("/predict", predict), ("/look", look), ("/sample", sample)):
        routes.append(Route(path, _guarded(function), methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[Middleware(Gate, hosts=tuple(hosts))],
        exception_handlers={HTTPException: _no_such_page},
    )


def _guarded(
    function: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """The function with sentences for what goes wrong; what was not expected is logged."""

    async def guarded(request: Request) -> Response:
        try:
            return await function(request)
        except Refused as refused:
            return _json({"error": str(refused)}, refused.status)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            return _json({"error": "Something went wrong, see the terminal."}, 500)

    return guarded


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
      Refused: it is too large, or too slow.
    """
    parts, size = [], 0
    declared = request.headers.get("content-length", "")
    most = min(int(declared), _DISCARDED * limit) if declared.isdigit() else _DISCARDED * limit
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    parts.append(chunk)
                elif size >= most:
                    break
                else:
                    parts.clear()
    except TimeoutError:
        raise Refused(408, f"The upload took longer than {UPLOAD_SECONDS} seconds.") from None
    if size > limit:
        raise Refused(413, f"This is larger than {megabytes(limit)}, the limit of an upload.")
    return b"".join(parts)


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status)  # refuses numbers that are not finite


def _file(package: str, name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (resources.files(package) / "assets" / name).read_bytes()
    kind = _KINDS[name.rpartition(".")[2]]

    async def respond(request: Request) -> Response:
        return Response(content, media_type=kind)

    return respond


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "There is no such page.", 405: "This page is not asked for in that way."}
    text = said.get(error.status_code, "This cannot be answered.")
    return _json({"error": text}, error.status_code)


class Gate:
    """Lets in who asks for this host from no other site, and adds what browsers are to obey."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = _refusal(scope["method"], Headers(scope=scope), self._hosts)
        app = self._app if refusal is None else _json({"error": refusal[1]}, refusal[0])
        with contextlib.suppress(ConnectionError):
            await app(scope, receive, with_headers)


def _refusal(method: str, headers: Headers, hosts: tuple[str, ...]) -> tuple[int, str] | None:
    """(status, why) a request is not let in; None where it is."""
    host = headers.get("host", "")
    if not allowed(host, hosts):
        return 400, "This page is not known by that name; ask for the address in the terminal."
    if method in ("GET", "HEAD"):
        return None
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    own = origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
    if not own or site not in ("same-origin", "none"):
        return 403, "Pages of other sites cannot ask this network."
    return None


_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


def allowed(host: str, names: Collection[str]) -> bool:
    """Whether a `Host` is one of the names, whatever its port.

    Names that are no addresses of digits may be made to lead here by whoever owns them (DNS
    rebinding), which is why a page of that name is not given.
    """
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".")
    return name in names or (ANY_ADDRESS in names and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
