"""Binds the application to a port, and serves until Ctrl-C."""

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator

import uvicorn

from jaxvision.errors import UserError
from jaxvision.runs import Run
from jaxvision.serve import app
from jaxvision.serve.service import Service

_EVERYWHERE = ("0.0.0.0", "::")
_CONNECTIONS = 64


def serve(
    run: Run,
    listener: socket.socket,
    host: str,
    limit: int = app.LIMIT,
    browse: bool = False,
    as_is: bool = False,
) -> None:
    """Serves a network until Ctrl-C or SIGTERM.

    Args:
      run: the network.
      listener: see `listen`.
      host: that it was bound to.
      limit: bytes of an upload.
      browse: whether to open the page in a browser.
      as_is: see `Service`.

    Raises:
      UserError: there is nothing to serve, or it does not compile.
    """
    service, worker = Service(run, _said, as_is), app.Worker()
    address = address_of(listener, host)
    if host not in app.LOCAL:
        port = listener.getsockname()[1]
        _say(
            f"warning: whoever reaches port {port} of {host} can use this network; there is no "
            "password."
        )
    warm = worker.submit(service.warm)
    application = app.create(service, worker, warm.done, names_of(host), limit)
    settings = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(settings)

    def compiled(future: object) -> None:
        if warm.cancelled():
            return
        if warm.exception() is not None:
            server.should_exit = True
        else:
            _say(f"Serving {service.name} at {address} (Ctrl-C ends it)")

    _say(f"Compiling {run.config.model.name}, open {address}")
    warm.add_done_callback(compiled)
    if browse and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has closed its connections, and raises it again
        pass
    finally:
        worker.close()
    if warm.done() and not warm.cancelled():
        warm.result()
    _say("Ended.")


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; 0 takes any free port.

    Raises:
      UserError: there is no such address, or the port is taken or not allowed.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise UserError(f"--host={host} is no address of this machine.") from None
    listener = socket.socket(family, kind)
    if os.name == "posix":  # elsewhere it would share a port that is taken
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen(_CONNECTIONS)
    except OSError as error:
        listener.close()
        said = {
            errno.EADDRINUSE: f"Port {port} is in use; --port gives another, 0 any that is free.",
            errno.EACCES: f"Port {port} is not allowed to you; those from 1024 on are.",
            errno.EADDRNOTAVAIL: f"--host={host} is no address of this machine.",
        }
        if error.errno not in said:
            raise
        raise UserError(said[error.errno]) from None
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """What is typed into a browser on this machine."""
    name = "127.0.0.1" if host in _EVERYWHERE else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def names_of(host: str) -> tuple[str, ...]:
    """The names under which the page may be asked for, where it is bound to `host`."""
    if host in app.LOCAL:
        return app.LOCAL
    if host in _EVERYWHERE:
        return (*app.LOCAL, app.ANY_ADDRESS, socket.gethostname().lower())
    return (*app.LOCAL, host.lower())


def _has_screen() -> bool:
    """Whether a browser has where to open; in a terminal it would be one of text."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in screens)


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    _say(f"{what} ...")
    yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
