"""The served digits, asked over HTTP: numbers, pictures, limits, what is refused."""

import base64
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serve.serving import ask, post, served

from jaxvision import cli, runs
from jaxvision.commands import serve as command
from jaxvision.errors import UserError
from jaxvision.serve import Service, app, encoding, server
from jaxvision.tasks import configuration
from jaxvision.train import run

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")
SMALL = {
    "model.name": "resnet8_cifar",
    "train.duration": 3,
    "eval.every": "never",
    "log.tensorboard": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("secretplace") / "digits"
    run(configuration.load(DIGITS, SMALL), workdir)
    return workdir


@pytest.fixture(scope="module")
def opened(folder):
    return runs.open(folder, overrides={"data.max_image_pixels": "67108864"})


@pytest.fixture(scope="module")
def service(opened):
    return Service(opened, lambda what: nullcontext())


@pytest.fixture(scope="module")
def port(service):
    with served(service, limit=200_000) as port:
        yield port


def photograph(height=8, width=8, mode="L", seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    return Image.fromarray(levels).convert(mode)


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def decoded(picture):
    content = base64.b64decode(picture["url"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def huge_png():
    """A PNG whose header declares more than it holds."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


# -- what is said ---------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_command(port, folder, tmp_path):
    files = {"plain.png": photograph(), "turned.png": photograph(seed=1)}
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in files.items():
        image.save(tmp_path / name, exif=exif if name == "turned.png" else None)
    paths, out = [str(tmp_path / name) for name in files], tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", "--workdir", str(folder), *paths, "--output", str(out)])
    assert left.value.code == 0
    for expected in json.loads((out / "predictions.json").read_text()):
        name = Path(expected["file"]).name
        status, found = post(port, "/predict", (tmp_path / name).read_bytes())
        assert status == 200
        assert found["classes"] == expected["classes"]
        upright = np.asarray(files[name])
        upright = np.rot90(upright, -1) if name == "turned.png" else upright
        np.testing.assert_array_equal(decoded(found["photograph"]), upright)
        (bars,) = found["shown"]
        assert [row["name"] for row in bars["rows"]] == [one["name"] for one in found["classes"]]
        assert found["seen"] == [8, 8]
        assert found["reduced"] is None
        assert 0 < found["seconds"] < 60


def test_other_sizes_are_fitted_and_compile_nothing(service, opened):
    compiled = []

    def compiling(what):
        compiled.append(what)
        return nullcontext()

    fresh = Service(opened, compiling)
    fresh.warm()
    assert compiled == ["Compiling for images of 8x8"]
    found = [fresh.predict(encoded(photograph(*size))) for size in ((8, 8), (40, 30), (7, 90))]
    assert [one["seen"] for one in found] == [[8, 8]] * 3
    assert [(one["photograph"]["width"], one["photograph"]["height"]) for one in found] == [
        (8, 8), (30, 40), (90, 7),
    ]  # fmt: skip
    assert compiled == ["Compiling for images of 8x8"]
    as_is = Service(opened, compiling, as_is=True)
    image = photograph(16, 12)
    said = as_is.predict(encoded(image))
    (expected,) = opened.predict([np.asarray(image)])
    assert said["seen"] == [12, 16]
    best = said["classes"][0]
    assert best["probability"] == pytest.approx(
        float(expected.outputs["probabilities"].max()), 1e-4
    )


def test_the_page_is_told_what_there_is(port):
    status, _, text = ask(port, "GET", "/about")
    about = json.loads(text)
    assert status == 200
    assert about["name"] == "digits"
    assert (about["task"], about["network"]) == ("classification", "resnet8_cifar")
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["image_size"] == [8, 8, 1]
    assert (about["predicts"], about["samples"], about["looks"]) == (True, None, "Grad-CAM")
    assert about["limit"] == 200_000


def test_a_class_is_looked_for(port, service):
    data = encoded(photograph(20, 16))
    status, found = post(port, "/look?class=3", data)
    (overlay,) = found["shown"]
    assert (status, overlay["title"], overlay["grey"]) == (200, "Grad-CAM, 3", True)
    picture = overlay["picture"]
    assert (picture["width"], picture["height"]) == (16, 20)
    assert decoded(picture).shape == (20, 16, 4)
    best = post(port, "/predict", data)[1]["classes"][0]["name"]
    assert post(port, "/look", data)[1]["shown"][0]["title"] == f"Grad-CAM, {best}"
    status, said = post(port, "/look?class=33", data)
    assert status == 422
    assert "'3'" in said["error"]
    status, said = post(port, "/sample", b"{}")
    assert (status, said["error"]) == (422, "This network makes no images.")


# -- uploads --------------------------------------------------------------------------------------

READABLE = {
    "grey": lambda: encoded(photograph(20, 20)),
    "colours": lambda: encoded(photograph(20, 20, "RGB"), "JPEG"),
    "with opacity": lambda: encoded(photograph(20, 20, "RGBA")),
    "palette": lambda: encoded(photograph(20, 20, "P")),
    "16 bits": lambda: encoded(Image.fromarray(np.full((20, 20), 40_000, np.uint16))),
    "CMYK": lambda: encoded(photograph(20, 20, "CMYK"), "JPEG"),
    "animated": lambda: encoded(
        photograph(20, 20), "GIF", save_all=True, append_images=[photograph(20, 20, seed=1)]
    ),
    "WebP": lambda: encoded(photograph(20, 20, "RGB"), "WEBP"),
    "TIFF": lambda: encoded(photograph(20, 20, "RGB"), "TIFF"),
    "one pixel": lambda: encoded(photograph(1, 1)),
}


@pytest.mark.parametrize("kind", READABLE)
def test_photographs_of_all_kinds_are_read(port, kind):
    status, found = post(port, "/predict", READABLE[kind](), Content_Type="text/plain")
    assert status == 200
    assert len(found["classes"]) == 5


BROKEN = {
    "text": (lambda: b"This is no image, whatever its name says.", "no known image format"),
    "nothing": (lambda: b"", "empty"),
    "cut JPEG": (lambda: encoded(photograph(90, 90, "RGB"), "JPEG")[:-500], ""),
    "cut PNG": (lambda: encoded(photograph(90, 90))[:-500], ""),
    "huge": (huge_png, "40000x40000 pixels"),
    "floats": (lambda: encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "range"),
    "page": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "no known image format"),
    "volume": (lambda: b"\x93NUMPY" + bytes(80), "damaged NumPy file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_photograph_is_a_sentence(port, kind):
    data, said = BROKEN[kind]
    status, found = post(port, "/predict", data())
    assert status == 422
    assert list(found) == ["error"]
    assert found["error"].startswith("This cannot be read as an image: ")
    assert said in found["error"]


def test_volumes_are_not_images(port):
    content = io.BytesIO()
    np.save(content, np.zeros((4, 8, 8), np.uint8))
    status, found = post(port, "/predict", content.getvalue())
    assert status == 422
    assert found["error"] == "This network takes an image, not a volume (.npy)."


@pytest.mark.parametrize("size", [200_001, 500_000, 5_000_000])
def test_large_uploads_are_refused(port, size):
    try:
        status, found = post(port, "/predict", bytes(size))
    except (ConnectionError, TimeoutError):
        assert size > app._DISCARDED * 200_000  # the rest was not read
        return
    assert (status, found["error"]) == (413, "This is larger than 200 kB, the limit of an upload.")


# -- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", ""])
def test_other_names_are_not_answered(port, host):
    for method, path in (("GET", "/"), ("GET", "/about"), ("POST", "/predict")):
        status, _, text = ask(port, method, path, Host=host)
        assert status == 400
        assert "jaxvision" not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_pages_of_other_sites_cannot_ask(port, headers):
    for path in ("/predict", "/look", "/sample"):
        status, found = post(port, path, encoded(photograph()), **headers)
        assert (status, found["error"]) == (403, "Pages of other sites cannot ask this network.")


def test_the_own_page_can_ask(port):
    given = {"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"}
    status, _ = post(port, "/predict", encoded(photograph()), Sec_Fetch_Site="same-origin", **given)
    assert status == 200


def test_names_of_hosts():
    assert all(app.allowed(host, app.LOCAL) for host in ("localhost", "LOCALHOST:80", "[::1]:8000"))
    assert not any(app.allowed(host, app.LOCAL) for host in ("192.168.0.7", "[fe80::1]", "::1"))
    everywhere = server.names_of("0.0.0.0")
    assert all(
        app.allowed(host, everywhere) for host in ("192.168.0.7:1", "[fe80::1]", "localhost")
    )
    assert not any(app.allowed(host, everywhere) for host in ("evil.example", "1.2.3.4.example"))
    assert server.names_of("127.0.0.1") == app.LOCAL
    assert "box.local" in server.names_of("Box.local")


def test_every_answer_has_a_policy_and_the_page_loads_from_here_alone(port):
    for path in ("/", "/about", "/serve.js", "/nowhere"):
        _, headers, _ = ask(port, "GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    _, headers, page = ask(port, "GET", "/")
    assert headers["content-type"].startswith("text/html")
    for name in ("page.html", "serve.js", "page.js", "drawing.js", "camera.js", "samples.js"):
        text = (Path(app.__file__).parent / "assets" / name).read_text()
        assert "//" not in text.replace("// ", "").replace("http://localhost", "")
        assert "innerHTML" not in text
    assert "style=" not in page
    assert "onclick=" not in page


def test_pages_that_are_not_there(port):
    for method, path, status in (("GET", "/x", 404), ("GET", "/predict", 405), ("PUT", "/", 405)):
        found, _, text = ask(port, method, path)
        assert found == status
        assert json.loads(text)["error"].endswith(".")


# -- what does not get out ------------------------------------------------------------------------


class Broken:
    """A service that fails as it is told to."""

    name = "broken"

    def __init__(self, error):
        self.error = error

    def about(self):
        return {"name": self.name}

    def predict(self, data):
        raise self.error


def test_no_place_of_the_machine_is_told(port, folder, service, caplog):
    secret = folder.parent.name
    texts = [ask(port, "GET", path)[2] for path in ("/", "/about", "/nowhere")]
    for data in (encoded(photograph()), b"no image", huge_png()):
        texts += [ask(port, "POST", path, data)[2] for path in ("/predict", "/look", "/sample")]
    with served(Broken(UserError(f"Cannot read {folder}/checkpoints/3: it is damaged."))) as other:
        status, _, text = ask(other, "POST", "/predict", b"x")
        assert status == 422
        assert json.loads(text)["error"] == "Cannot read (a file): it is damaged."
        texts.append(text)
    with served(Broken(ValueError(f"in {folder}"))) as other:
        status, _, text = ask(other, "POST", "/predict", b"x")
        assert status == 500
        assert json.loads(text) == {"error": "Something went wrong, see the terminal."}
        texts.append(text)
    assert secret not in "".join(texts)
    assert str(Path.home()) not in "".join(texts)
    assert secret in caplog.text  # where it is of use


def test_nothing_is_written(port):
    written, watched = [], [True]

    def watch(event, arguments):
        if watched and event == "open" and set(arguments[1] or "") & set("wax+"):
            written.append(arguments[0])

    sys.addaudithook(watch)  # stays for good
    post(port, "/predict", encoded(photograph(30, 30, "RGB", seed=9), "TIFF"))
    post(port, "/predict", b"no image")
    assert not written
    watched.clear()


def test_places_are_taken_out_of_messages():
    for text in ("/a/b.png is", "'/a/b' is", "see ~/a/b", r"C:\a\b.png is"):
        assert "a file" in encoding.without_places(text)
    for text in ("1/2 of it", "kind/of", "a / b", "data.max_image_pixels=3"):
        assert encoding.without_places(text) == text


# -- one at a time --------------------------------------------------------------------------------


class Slow:
    """A service that answers when it may, and counts how many ask it at a time."""

    name = "slow"

    def __init__(self):
        self.may_end, self.inside, self.most = threading.Event(), 0, 0

    def predict(self, data):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.may_end.wait(30)
        self.inside -= 1
        return {"said": data.decode()}


def test_requests_take_turns_and_few_wait():
    slow, found = Slow(), {}
    with served(slow, waiting=3) as port:

        def request(number):
            found[number] = post(port, "/predict", str(number).encode())

        threads = [threading.Thread(target=request, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(found) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [status for status, _ in found.values()] == [503, 503]
        assert {one["error"] for _, one in found.values()} == {
            "Too many requests are waiting; try again in a moment."
        }
        slow.may_end.set()
        for thread in threads:
            thread.join(30)
        assert sorted(status for status, _ in found.values()) == [200, 200, 200, 503, 503]
        assert all(one == {"said": str(k)} for k, (status, one) in found.items() if status == 200)
        assert slow.most == 1
        assert post(port, "/predict", b"again") == (200, {"said": "again"})


def test_a_request_that_takes_too_long_is_given_up():
    slow = Slow()
    with served(slow, seconds=0.2) as port:
        status, found = post(port, "/predict", b"x")
        assert (status, found["error"]) == (504, "There was no answer within 0.2 seconds.")
        slow.may_end.set()
        assert post(port, "/predict", b"y") == (200, {"said": "y"})


def test_the_page_waits_until_the_network_is_compiled(service):
    with served(service, ready=lambda: False) as port:
        assert json.loads(ask(port, "GET", "/about")[2]) == {"name": "digits", "ready": False}


# -- the command ----------------------------------------------------------------------------------


def test_sizes_have_units():
    found = [command.bytes_of(text) for text in ("20MB", "500 kB", "1.5mb", "7", "1GB")]
    assert found == [20_000_000, 500_000, 1_500_000, 7, 1_000_000_000]
    for text in ("", "MB", "0", "-1MB", "3 apples", "1e9"):
        with pytest.raises(UserError, match="--limit is a size such as"):
            command.bytes_of(text)


def test_ports_that_cannot_be_had():
    with server.listen("127.0.0.1", 0) as listener:
        taken = listener.getsockname()[1]
        assert server.address_of(listener, "127.0.0.1") == f"http://127.0.0.1:{taken}"
        assert server.address_of(listener, "0.0.0.0") == f"http://127.0.0.1:{taken}"
        with pytest.raises(UserError, match=f"Port {taken} is in use; --port gives another"):
            server.listen("127.0.0.1", taken)
    with pytest.raises(UserError, match=r"--host=nowhere\.invalid is no address of this machine"):
        server.listen("nowhere.invalid", 0)
    with pytest.raises(UserError, match=r"--host=192\.0\.2\.1 is no address of this machine"):
        server.listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "--workdir", "{run}"], "The folder of a run is given twice"),
        (["{run}", "--port", "70000"], "is a number from 0 to 65535"),
        (["nowhere", "--port", "0"], "nowhere"),
        (["--port", "0"], "Give one of --workdir"),
    ],
)
def test_what_cannot_be_served(folder, arguments, said):
    options, overrides = cli._parser().parse_known_args(
        ["serve", *(one.format(run=folder) for one in arguments)]
    )
    with pytest.raises(UserError, match=said):
        options.run(options, cli._overrides(overrides))


def test_the_extra_is_named_where_it_lacks(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "jaxvision.serve.server")
    monkeypatch.delattr("jaxvision.serve.server")
    options, _ = cli._parser().parse_known_args(["serve", str(folder)])
    with pytest.raises(UserError, match=r"serve needs: pip install 'jaxvision\[serve\]'"):
        options.run(options, {})


def test_the_command_serves_until_it_is_interrupted(folder):
    program = [sys.executable, "-m", "jaxvision", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stderr is not None
        said = ""
        while "Serving digits at" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        address = said.split("Serving digits at ")[1].split()[0]
        number = int(address.rpartition(":")[2])
        assert f"Compiling resnet8_cifar, open {address}" in said
        assert post(number, "/predict", encoded(photograph()))[0] == 200
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
        assert rest == "Ended.\n"
