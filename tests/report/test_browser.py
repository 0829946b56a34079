"""Reports in headless Chromium; see `tests/chromium.py`."""

import json

import numpy as np
import pytest
from chromium import emulate, keep, start

from jaxvision.report import Figure, Gallery, Page, Section, Table, Text, charts, render

pytestmark = pytest.mark.browser
HOSTILE = "</script><script>document.title='taken'</script>\" onerror=\"document.title='taken'\""
NAMES = ["cat", "dog", HOSTILE]


def page():
    rng = np.random.default_rng(0)
    figures = [
        Figure(
            rng.integers(0, 256, (8, 8, 3), np.uint8),
            f"{NAMES[k % 3]} {k}",
            tags=(NAMES[k % 3],),
            wrong=k % 2 == 0,
        )
        for k in range(12)
    ]
    steps = range(0, 1000, 10)
    curves = {
        "train": [(s, 2 * np.exp(-s / 300) + 0.1 * rng.random()) for s in steps],
        "validation": [(s, 2 * np.exp(-s / 300) + 0.2) for s in steps],
    }
    matrix = np.array([[30, 2, 1], [4, 25, 0], [0, 3, 28]])
    rows = [["b", 2, 0.5], ["a", 10, None], ["c", 1, 0.75]]
    return Page(
        title="A run",
        lead="Of three classes.",
        figures=[("accuracy", "0.89")],
        sections=[
            Section("Curves", [charts.curves("loss", curves, marked=700)]),
            Section(
                "Classes",
                [
                    charts.heatmap("Confusion matrix", matrix, NAMES),
                    charts.bars("Recall", {NAMES[0]: 0.9, NAMES[2]: 0.6}, value="recall"),
                    Table(("name", "count", "share"), rows, "A table"),
                ],
            ),
            Section("Predictions", [Text("."), Gallery(figures, "Worst first", "class")]),
        ],
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(page()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = start(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


def opened(browser, file, width=1200, height=900, dark=False):
    """The page, once all its charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    emulate(browser, width, height, dark)
    browser.get(file.as_uri())
    for chart in browser.find_elements("css selector", "[data-chart]"):
        browser.execute_script("arguments[0].scrollIntoView()", chart)
        WebDriverWait(browser, 60).until(lambda _, c=chart: c.get_attribute("data-drawn"))
    browser.execute_script("scrollTo(0, 0)")
    return browser


def test_charts_are_drawn_and_nothing_is_loaded_or_complained_of(browser, file):
    browser.get("about:blank")
    browser.get_log("performance")  # what the browser itself asks for when it starts
    opened(browser, file)
    keep(browser, "light")
    assert len(browser.find_elements("css selector", "svg.marks")) == 3
    assert browser.title == "A run"  # no name has run
    assert browser.get_log("browser") == []
    log = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [line["params"] for line in log if line["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in sent]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file")] == [file.as_uri()]


def test_pictures_are_found_by_class_and_by_keyboard(browser, file):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    opened(browser, file)

    def shown():
        every = browser.find_elements("css selector", ".gallery figure")
        return [one for one in every if one.is_displayed()]

    assert len(shown()) == 12
    box = browser.find_element("css selector", "[data-filter]")
    Select(box).select_by_value("dog")
    assert [one.text.split()[-2] for one in shown()] == ["dog"] * 4
    browser.find_element("css selector", "[data-wrong]").send_keys(Keys.SPACE)
    assert len(shown()) == 2
    assert "2 of 12" in browser.find_element("css selector", "output").text
    options = [one.get_attribute("value") for one in Select(box).options]
    Select(box).select_by_index(options.index(HOSTILE))
    assert len(shown()) == 2
    browser.find_element("css selector", "[data-wrong]").send_keys(Keys.SPACE)
    Select(box).select_by_value("")
    assert len(shown()) == 12


def test_tables_are_sorted_by_what_is_missing_last(browser, file):
    from selenium.webdriver.common.keys import Keys

    opened(browser, file)
    name, count, share = browser.find_elements("css selector", "thead button")

    def column(place):
        rows = browser.find_elements("css selector", "tbody tr")
        return [row.find_elements("css selector", "th, td")[place].text for row in rows]

    name.send_keys(Keys.ENTER)
    assert column(0) == ["a", "b", "c"]
    count.send_keys(Keys.ENTER)
    assert column(1) == ["1", "2", "10"]
    share.send_keys(Keys.ENTER)
    assert column(2) == ["0.5", "0.75", "–"]
    share.send_keys(Keys.ENTER)
    assert column(2) == ["0.75", "0.5", "–"]


def test_a_dark_page_has_light_text_and_charts(browser, file):
    opened(browser, file, dark=True)
    keep(browser, "dark")

    def lightness(element, what):
        colour = browser.execute_script(f"return getComputedStyle(arguments[0]).{what}", element)
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 765

    body = browser.find_element("css selector", "body")
    assert lightness(body, "backgroundColor") < 0.2 < 0.8 < lightness(body, "color")
    label = browser.find_element("css selector", "svg.marks .role-axis-label text")
    assert lightness(label, "fill") > 0.7


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, file):
    opened(browser, file, width=360, height=740)
    keep(browser, "phone")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 360
    for chart in browser.find_elements("css selector", "svg.marks"):
        assert chart.size["width"] <= 360
