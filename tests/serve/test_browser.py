"""The served page in headless Chromium; see `tests/chromium.py`."""

import base64
import io
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from chromium import emulate, keep, start
from PIL import Image
from serve.serving import served

from jaxvision import runs
from jaxvision.serve import Service, encoding
from jaxvision.tasks import configuration, shown
from jaxvision.train import run

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
QUIET = {"log.report": False, "log.tensorboard": False}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = start(tmp_path_factory.mktemp("profile"), *CAMERA)
    yield found
    found.quit()


def trained(tmp_path_factory, name, **keys):
    workdir = tmp_path_factory.mktemp(name.replace("/", "_")) / HOSTILE.replace("/", "")
    run(configuration.load(f"{ROOT / 'configs' / name}.py:smoke", {**QUIET, **keys}), workdir)
    return Service(runs.open(workdir), lambda what: nullcontext())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    with served(trained(tmp_path_factory, "classification/digits"), limit=100_000) as port:
        yield port


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with served(trained(tmp_path_factory, "detection/shapes")) as port:
        yield port


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    with served(trained(tmp_path_factory, "generation/digits_dcgan")) as port:
        yield port


class Canned:
    """A service that says of every photograph what it was made with."""

    def __init__(self, *parts):
        self.name, self.parts = "canned", parts

    def about(self):
        return {
            "name": self.name, "task": "task", "network": "network", "parameters": 1, "step": None,
            "classes": [HOSTILE], "image_size": [20, 30, 3], "predicts": True, "looks": None,
            "looks_for": [], "samples": None, "most_samples": 64, "version": "1",
        }  # fmt: skip

    def predict(self, data):
        blank = np.full((20, 30, 3), 200, np.uint8)
        return {
            "seconds": 0.5, "seen": [30, 20], "reduced": None,
            "photograph": encoding.picture(blank),
            "shown": [encoding.part(one) for one in self.parts],
        }  # fmt: skip


def opened(browser, port, **screen):
    emulate(browser, **screen)
    browser.get(f"http://127.0.0.1:{port}/")
    until(browser, "return document.getElementById('lead').textContent.includes('·')")
    return browser


def until(browser, script, *arguments):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda b: b.execute_script(script, *arguments))


def one(browser, selector):
    return browser.find_element("css selector", selector)


def every(browser, selector):
    return browser.find_elements("css selector", selector)


def drawn(browser):
    return browser.execute_script("return document.getElementById('stage').toDataURL()")


def png(height, width, seed=0):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def drop(browser, data, name="photo.png"):
    """Drops a file onto the page, and waits for what is said."""
    browser.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], arguments[1]));
        document.getElementById("status").textContent = "";
        document.getElementById("error").textContent = "";
        dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
        """,
        base64.b64encode(data).decode(),
        name,
    )
    until(
        browser,
        "return document.getElementById('status').textContent.startsWith('The network took')"
        " || document.getElementById('error').textContent",
    )


def test_a_photograph_is_dropped_and_classified(browser, classifier):
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    opened(browser, classifier)
    assert "resnet8_cifar" in one(browser, "#lead").text
    assert browser.title.startswith("<img")  # the name of the folder is a text
    drop(browser, png(8, 8))
    keep(browser, "classifier")
    rows = every(browser, "#parts button.row")
    assert len(rows) == 5
    assert all("%" in row.text for row in rows)
    assert "8 x 8 pixels" in one(browser, "#status").text
    assert one(browser, "#stage").get_attribute("aria-label").startswith("The photograph. ")
    assert one(browser, "#stage").size["width"] > 150  # eight pixels, enlarged
    assert browser.get_log("browser") == []
    log = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [line["params"] for line in log if line["method"] == "Network.requestWillBeSent"]
    asked = {one["request"]["url"] for one in sent}
    own = f"http://127.0.0.1:{classifier}/"
    assert all(url.startswith((own, "data:", "about:")) for url in asked)
    assert f"{own}predict" in asked


def test_what_is_wrong_is_said(browser, classifier):
    opened(browser, classifier)
    drop(browser, b"a text", "photo.png")
    assert "cannot be read as an image" in one(browser, "#error").text
    drop(browser, bytes(100_001))
    assert "larger than 0.10 MB" in one(browser, "#error").text
    drop(browser, png(8, 8))
    assert one(browser, "#error").text == ""


def test_a_class_is_looked_for_by_keyboard(browser, classifier):
    from selenium.webdriver.common.keys import Keys

    opened(browser, classifier)
    drop(browser, png(30, 20))
    before = drawn(browser)
    row = every(browser, "#parts button.row")[1]
    row.send_keys(Keys.ENTER)
    until(browser, "return document.getElementById('looking').checked")
    assert row.get_attribute("aria-pressed") == "true"
    assert drawn(browser) != before
    name = row.get_attribute("data-class")
    assert one(browser, "#status").text == f"Grad-CAM, {name}"
    keep(browser, "looking")
    one(browser, "#looking").send_keys(Keys.SPACE)
    until(browser, "return !document.getElementById('looking').checked")
    until(browser, "return document.querySelector('#parts [aria-pressed=true]') === null")
    assert drawn(browser) == before


def test_objects_are_filtered_by_their_score_at_once(browser, detector):
    browser.get_log("browser")
    opened(browser, detector)
    drop(browser, png(120, 160))

    def to(value):
        slider = one(browser, "#threshold")
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            slider, value,
        )  # fmt: skip
        return len(every(browser, "#parts button.row"))

    counts = [to(value) for value in (0, 0.2, 0.5, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    assert counts[0] > 0
    to(0)
    keep(browser, "detector")
    assert browser.get_log("browser") == []
    drop(browser, png(90, 90, seed=1))
    assert one(browser, "#threshold").get_attribute("value") == "0"  # stays for the next


def test_images_are_made_one_after_another(browser, generator):
    browser.get_log("browser")
    opened(browser, generator)
    assert not one(browser, "#photo").is_displayed()
    browser.execute_script("document.querySelector('[name=count]').value = 3")

    def made():
        one(browser, "#ask button.main").click()
        until(
            browser, "return document.getElementById('status').textContent.startsWith('3 images')"
        )
        return [image.get_attribute("src") for image in every(browser, "#made img")]

    first = made()
    assert len(set(first)) == 3
    assert made() == first
    browser.execute_script("document.querySelector('[name=seed]').value = 7")
    other = made()
    keep(browser, "generator")
    assert not set(other) & set(first)
    browser.execute_script("document.querySelector('[name=truncation]').value = 5")
    one(browser, "#ask button.main").click()
    assert browser.execute_script(
        "return !document.querySelector('[name=truncation]').validity.valid"
    )
    assert browser.get_log("browser") == []


def test_the_camera_is_looked_through(browser, classifier):
    opened(browser, classifier)
    one(browser, "#camera").click()
    until(browser, "return document.getElementById('video').videoWidth > 0")
    one(browser, "#still").click()
    until(browser, "return !document.getElementById('result').hidden")
    one(browser, "#continuous").click()
    browser.execute_script("document.getElementById('status').textContent = ''")
    until(browser, "return document.getElementById('status').textContent.startsWith('The network')")
    keep(browser, "camera")
    one(browser, "#continuous").click()
    one(browser, "#stop").click()
    assert not one(browser, "#live").is_displayed()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_without_scrolling_sideways(browser, classifier, detector, dark):
    for name, port in (("classifier", classifier), ("detector", detector)):
        opened(browser, port, width=360, height=740, dark=dark)
        drop(browser, png(90, 160))
        keep(browser, f"{name}_phone{'_dark' if dark else ''}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        body = one(browser, "body")

        def lightness(what, body=body):
            script = f"return getComputedStyle(arguments[0]).{what}"
            colour = browser.execute_script(script, body)
            parts = colour[colour.index("(") + 1 : -1].split(",")[:3]
            return sum(int(part) for part in parts) / 765

        assert (lightness("backgroundColor") < 0.2 < 0.8 < lightness("color")) == dark


def test_words_are_said_and_show_where_they_looked(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    maps = np.zeros((3, 20, 30, 4), np.uint8)
    for k in range(3):
        maps[k, :, 10 * k : 10 * k + 10] = (255, 0, 0, 255)
    with served(Canned(shown.Words(["a", HOSTILE, "dog"], maps))) as port:
        opened(browser, port)
        drop(browser, b"x")
        hidden = "return document.querySelectorAll('.words .unsaid').length"
        assert browser.execute_script(hidden) > 0
        until(browser, f"{hidden} === 0")
        before = drawn(browser)
        ActionChains(browser).move_to_element(every(browser, ".words button")[1]).perform()
        assert one(browser, ".words").text.split()[0] == "a"
        red = """
            const stage = document.getElementById('stage'), pen = stage.getContext('2d');
            return [0.17, 0.5, 0.83].map((part) => {
              const pixel = pen.getImageData(part * stage.width, stage.height / 2, 1, 1).data;
              return pixel[0] - pixel[1] > 50;
            })"""
        assert browser.execute_script(red) == [False, True, False]
        assert drawn(browser) != before
        assert browser.title.startswith("canned")


def test_overlays_objects_and_pictures(browser):
    colours = np.zeros((20, 30, 4), np.uint8)
    colours[:10] = (0, 0, 255, 255)
    legend = [shown.Entry(HOSTILE, (0, 0, 255), "50%")]
    points = np.array([[5, 5, 0.9], [10, 5, 0.3], [20, 10, 0.6]])
    pose = shown.Item("pose", (0, 255, 0), points=points)
    names, green = ("head", "hand", "foot"), (0, 255, 0)
    mask = np.ones((5, 5), bool)
    cat = shown.Item("cat", (255, 0, 0), 0.9, np.array([1, 1, 6, 6]), (mask, (1, 1)))
    browser.get_log("browser")
    with served(Canned(shown.Overlay("Classes", colours, legend))) as port:
        opened(browser, port)
        drop(browser, b"x")
        laid = drawn(browser)
        assert HOSTILE in one(browser, "#parts").text
        one(browser, "#controls input[type=checkbox]").click()
        bare = drawn(browser)
        assert bare != laid
        assert not one(browser, "#opacity").is_enabled()
        keep(browser, "overlay")
    with served(Canned(shown.Objects([pose], 0.5, [(0, 2, green)], names, [green] * 3))) as port:
        opened(browser, port)
        drop(browser, b"x")
        assert one(browser, "#parts h2").text == "2 of 3 key points"
        keep(browser, "points")
    with served(Canned(shown.Objects([cat], 0.5))) as port:
        opened(browser, port)
        drop(browser, b"x")
        assert one(browser, "#parts h2").text == "1 object"
        assert one(browser, "#opacity").is_enabled()
        assert drawn(browser) != bare
    both = shown.Pictures([(colours[..., :3], "given"), (colours[..., :3], "made")])
    with served(Canned(both, shown.Numbers([("psnr", "20 dB")]))) as port:
        for width in (1200, 360):
            opened(browser, port, width=width)
            drop(browser, b"x")
            assert not one(browser, "#stage").is_displayed()
            images = every(browser, "#parts img")
            assert len(images) == 2
            bottom = max(image.rect["y"] + image.rect["height"] for image in images)
            numbers = one(browser, "#parts dl")
            assert numbers.text == "psnr\n20 dB"
            assert bottom <= numbers.rect["y"] < one(browser, "footer").rect["y"]
            keep(browser, f"pictures_{width}")
    assert browser.get_log("browser") == []
