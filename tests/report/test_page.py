"""Pages as HTML: what is escaped, what is allowed, how large they are."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.report import Figure, Gallery, Page, Section, Table, Text, charts, render
from jaxvision.report.images import encoded

ASSETS = resources.files("jaxvision.report") / "assets"
HOSTILE = "</script><script>alert('1')</script>\" onerror=\"x\" ' \\ ${x} \u2028 <!-- é漢"


class Reader(HTMLParser):
    """Elements with their attributes, and the text in each kind of element."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag  # every element ends where it should

    def handle_data(self, data):
        for tag in self._open[-1:]:
            self.texts.setdefault(tag, []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(name, images=()):
    counts = np.array([[3, 1], [0, 4]])
    figures = [Figure(image, name, tags=(name, "b"), wrong=True) for image in images]
    return Page(
        title=name,
        lead=name,
        figures=[(name, "0.5")],
        sections=[
            Section(name, [Text(name), Table((name, "n"), [[name, 1], ["b", None]], name)]),
            Section("Charts", [
                charts.curves(name, {name: [(1, 0.5), (2, None), (3, 0.25)]}, marked=2),
                charts.heatmap(name, counts, [name, "b"]),
                charts.bars(name, {name: 0.5, "b": None}, value=name),
            ]),
            Section("Pictures", [Gallery(figures, name, filter="class")]),
            Section("Nothing", []),
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def hostile():
    image = np.zeros((8, 8, 1), np.uint8)
    return render(page_of(HOSTILE, [image] * 3))


def test_hostile_names_stay_text(hostile):
    found = Reader(hostile)
    scripts = found.all("script")
    assert [s.get("type") for s in scripts] == ["application/json"] * 3 + [None] * 4
    assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    shown = HOSTILE.replace("\u2028", " ")
    assert shown in found.texts["h1"]
    assert shown in found.texts["p"]
    assert shown in found.texts["figcaption"]
    assert f"{shown[:60]} (3)" in found.texts["option"]
    assert found.all("img")[0]["alt"] == shown
    tags = [json.loads(a["data-tags"]) for a in found.all("figure") if "data-tags" in a]
    options = [a["value"] for a in found.all("option")]
    assert options == ["", shown, "b"]
    assert tags == [[shown, "b"]] * 3  # as the choice has them


def test_charts_are_json_with_their_names_as_they_are(hostile):
    specs = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', hostile, re.S)
    assert len(specs) == 3
    first = json.loads(specs[0])
    assert [row["y"] for row in first["data"]["values"]] == [0.5, 0.25]
    assert {row["of"] for row in first["data"]["values"]} == {HOSTILE}
    second = json.loads(specs[1])
    text = second["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    # Vega's language sees letters, digits and codes alone within quotes.
    assert re.fullmatch(r'\["(?:[A-Za-z0-9]|\\u[0-9a-f]{4})*","b"\]\[datum\.value\]', text)
    names = json.loads(text.removesuffix("[datum.value]"))
    assert names == [HOSTILE[:23] + "…", "b"]


def test_only_the_scripts_of_the_page_may_run(hostile):
    (policy,) = [a["content"] for a in Reader(hostile).all("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    bodies = re.findall(r"<script>(.*?)</script>", hostile, re.S)
    digests = {base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies}
    assert allowed == digests
    assert len(bodies) == 4
    assert "\r" not in hostile  # which a browser would change before it takes the sum
    assert "sourceMappingURL" not in hostile


def test_the_libraries_are_what_the_list_says():
    about = json.loads((ASSETS / "vendored.json").read_text())
    files = {path.name for path in ASSETS.iterdir()}
    assert {name for name in files if name.endswith(".min.js")} == set(about)
    for name, one in about.items():
        content = (ASSETS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"], name
        assert b"Redistribution and use" in (ASSETS / one["licence"]).read_bytes()


def test_licences_travel_with_the_page(hostile):
    assert hostile.count("Redistributions in binary form must reproduce") == 3


def test_everything_is_reached_without_eyes_and_mouse(hostile):
    found = Reader(hostile)
    identities = [a["id"] for _, a in found.tags if "id" in a]
    assert len(identities) == len(set(identities))
    for link in found.all("a"):
        assert link["href"].removeprefix("#") in identities
    assert all(image["alt"] for image in found.all("img"))
    charts_ = [a for a in found.all("div") if "data-chart" in a]
    assert all(a["role"] == "img" and a["aria-description"] for a in charts_)
    for label in found.all("label"):
        assert label.get("for", identities[0]) in identities
    headings = [tag for tag, _ in found.tags if re.fullmatch(r"h\d", tag)]
    assert headings == ["h1", "h2", "h2", "h2", "h3"]
    assert ">Nothing<" not in hostile  # a section without parts


@pytest.mark.parametrize("side", [32, 400])
def test_a_page_never_grows_beyond_its_limit(side):
    images = [np.random.default_rng(k).integers(0, 256, (side, side, 3), np.uint8)
              for k in range(60)]  # fmt: skip
    limit = 1_100_000
    text = render(page_of("a", images), limit)
    assert len(text.encode()) <= limit
    shown = len(Reader(text).all("img"))
    assert shown >= 20
    if shown < 60:
        assert f"{60 - shown} more are left out" in text


def test_small_pictures_keep_their_pixels():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (uri,) = encoded([image], 10**6)
    content = base64.b64decode(uri.partition("base64,")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)


def test_long_curves_and_tables_are_cut_and_say_so():
    chart = charts.curves("loss", {"train": [(k, 1 / (k + 1)) for k in range(10_000)]})
    values = chart.spec["data"]["values"]
    assert len(values) == 600
    assert (values[0]["x"], values[-1]["x"]) == (0, 9999)
    table = Table(("a",), [[k] for k in range(1500)], "many")
    text = render(Page("t", sections=[Section("s", [table])]))
    assert "500 more rows are left out" in text


def test_numbers_are_read_and_sorted():
    table = Table(("name", "x"), [["a", 1234567], ["b", float("nan")], ["c", 0.123456789]], "t")
    text = render(Page("t", sections=[Section("s", [table])]))
    assert '<td class="n" data-v="1234567">1,234,567</td>' in text
    assert '<td class="n" >–</td>' in text
    assert 'data-v="0.123456789">0.1235</td>' in text


def test_the_page_of_the_documentation_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    exec(compile(block, "reports.md", "exec"), {})
    assert "<title>Two networks</title>" in (tmp_path / "page.html").read_text()
