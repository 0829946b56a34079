"""A served network for tests: a real server on a free port, asked by the standard library."""

import contextlib
import http.client
import json
import threading
import time

import uvicorn

from jaxvision.serve import app, server


@contextlib.contextmanager
def served(service, **options):
    """The port on which a service answers, in a thread, as `jaxvision serve` runs it."""
    worker = app.Worker(options.pop("waiting", app.WAITING))
    with server.listen("127.0.0.1", 0) as listener:
        application = app.create(service, worker, **options)
        settings = uvicorn.Config(application, lifespan="off", ws="none", log_level="error")
        running = uvicorn.Server(settings)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 30
        while not running.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(30)
            worker.close()


def ask(port, method, path, body=None, **headers):
    """(status, headers, text) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, given)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def post(port, path, body, **headers):
    """(status, JSON) of a POST."""
    status, _, text = ask(port, "POST", path, body, **headers)
    return status, json.loads(text, parse_constant=lambda name: 1 / 0)  # no NaN, no Infinity
