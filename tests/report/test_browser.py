"""The book as a reader meets it: every page in a headless Chromium, wide and narrow, with no way to other hosts."""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `test`)")

CHROMIUMS = [
    *("google-chrome-stable", "google-chrome", "chromium", "chromium-browser"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]
WIDE, NARROW = 1400, 400
PLANTED = "book/planted.html"  # a page that only one test makes and sees, while others may be at the same book

# What is wrong with a page once it has settled; a list of sentences.
SETTLED = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const faults = [];
  for (const image of document.images) {
    image.loading = 'eager';
    await image.decode().catch(() => faults.push('broken image: ' + image.getAttribute('src')));
  }
  for (const math of document.querySelectorAll('span.math, div.math'))
    if (!math.querySelector('mjx-container') || math.querySelector('mjx-merror'))
      faults.push('math is not rendered: ' + math.textContent.trim());
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth)
    faults.push(`the page is ${page.scrollWidth - page.clientWidth} px wider than its window`);
  return faults;
}"""


@dataclass
class Site:
    """A built book behind a local server."""

    html: Path
    url: str
    _ids: dict[Path, set[str]] = field(default_factory=dict)

    def pages(self) -> list[str]:
        found = (path.relative_to(self.html) for path in self.html.rglob("*.html"))
        return sorted(str(path) for path in found if path.parts[0] != "_static" and str(path) != PLANTED)

    def broken(self, link: str) -> bool:
        """Whether a link within the book leads to no file, or to no such place on its page."""
        parts = urlsplit(link)
        path = self.html / unquote(parts.path).lstrip("/")
        if not path.is_file():
            return True
        return bool(parts.fragment) and path.suffix == ".html" and unquote(parts.fragment) not in self._ids_of(path)

    def _ids_of(self, path: Path) -> set[str]:
        if path not in self._ids:
            self._ids[path] = set(re.findall(r"""\sid=["']([^"']+)["']""", path.read_text(errors="replace")))
        return self._ids[path]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(clone) -> Iterator[Site]:
    html = clone / "site"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(html, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((found for name in CHROMIUMS if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


def opened(browser: Any, width: int) -> tuple[Any, list[str]]:
    """A page of that width, and the list to which its faults will be added as they happen."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(30_000)
    faults: list[str] = []

    def requested(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            faults.append(f"request to elsewhere: {request.url}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            faults.append(f"failed request: {response.status} {response.url}")

    page.on("request", requested)
    page.on("response", answered)
    page.on("requestfailed", lambda request: faults.append(f"failed request: {request.url}"))
    page.on("console", lambda message: message.type == "error" and faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
    return page, faults


def faults_of(site: Site, browser: Any, path: str, width: int) -> list[str]:
    """All that is wrong with one page."""
    page, faults = opened(browser, width)
    page.goto(f"{site.url}/{path}", wait_until="load")
    page.wait_for_load_state("networkidle")
    faults += page.evaluate(SETTLED)
    links = page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
    inside = dict.fromkeys(link for link in links if link.startswith(f"{site.url}/"))
    faults += [f"broken link: {link.removeprefix(site.url)}" for link in inside if site.broken(link)]
    if width == WIDE:  # axe-core asks what a page is made of, not how wide it is
        faults += inaccessible(page)
    page.context.close()
    return faults


def inaccessible(page: Any) -> list[str]:
    """What axe-core calls serious or critical."""
    options = {"resultTypes": ["violations"], "preload": False}  # preloading asks for styles where there are none
    found = axe.Axe().run(page, options=options).response["violations"]
    severe = [
        (rule["id"], node) for rule in found if rule["impact"] in ("serious", "critical") for node in rule["nodes"]
    ]
    return [f"{rule}: {node['html'][:200]} at {node['target']}" for rule, node in severe]


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_page(site, browser, width):
    pages = site.pages()
    assert {"index.html", "book/api.html", "notebooks/gallery.html", "runs/tiny/outcome-r1-s0/cell.html"} <= set(pages)
    assert {path: faults for path in pages if (faults := faults_of(site, browser, path, width))} == {}


@pytest.mark.slow
def test_math_is_there_to_be_rendered(site, browser):
    page, _ = opened(browser, WIDE)
    page.goto(f"{site.url}/notebooks/method.html")
    page.wait_for_selector("mjx-container")
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_from_the_start_page_to_an_executed_cell(site, browser, width):
    page, faults = opened(browser, width)
    page.goto(site.url)
    page.wait_for_url("**/notebooks/answer.html")
    page.locator("article a[href*='results.html']").first.click()
    page.wait_for_url("**/notebooks/results.html*")
    page.locator(".lrd-outcomes a[href*='outcome-r1-s0']").click()
    page.wait_for_url("**/runs/tiny/outcome-r1-s0/cell.html")
    assert page.locator("article h1").first.inner_text().startswith("outcome, rank 1, seed 0")
    assert faults == []
    page.context.close()


@pytest.mark.slow
def test_terms_explain_themselves_and_no_chapter_leads_to_a_cell(site, browser):
    page, faults = opened(browser, WIDE)
    page.goto(f"{site.url}/notebooks/answer.html")
    assert page.locator("a.lrd-term", has_text="arm").first.get_attribute("title").startswith("What is trained:")
    seen = []
    while (onward := page.locator("a.right-next")).count():
        onward.click()
        page.wait_for_load_state()
        seen.append(urlsplit(page.url).path)
    assert len(seen) > 20 and not [path for path in seen if path.startswith("/runs/")]
    assert page.locator(".bd-sidebar-primary a[href*='/runs/']").count() == 0
    assert faults == []
    page.context.close()


@pytest.mark.slow
def test_a_live_figure_answers_hover_legend_and_click(site, browser):
    page, faults = opened(browser, WIDE)
    page.goto(f"{site.url}/notebooks/results.html")
    figure = page.locator(".lrd-live.lrd-on").first
    figure.locator("svg").first.wait_for()
    assert not figure.locator("> img").is_visible()  # the script has drawn it
    mark = figure.locator("path[aria-label*='outcome-r1-s0']").last
    mark.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "outcome-r1-s0" in tip.inner_text() and "0.75" in tip.inner_text()

    points = figure.locator("path[aria-label*='process-r4-s1']")
    assert points.count() > 0
    figure.locator(".role-legend-label text").first.click(force=True)  # rank 1
    sync_api.expect(points).to_have_count(0)
    assert figure.locator("path[aria-label*='outcome-r1-s0']").count() > 0
    figure.locator("path[aria-label*='outcome-r1-s0']").last.click(force=True)
    page.wait_for_url("**/runs/tiny/outcome-r1-s0/cell.html")
    assert faults == []
    page.context.close()


@pytest.mark.slow
def test_figures_stand_as_svg_without_scripts_and_in_print(site, browser):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{site.url}/notebooks/results.html")
    still = page.locator(".lrd-live > img").first
    assert still.is_visible() and still.bounding_box()["height"] > 100
    page.context.close()
    page, _ = opened(browser, WIDE)
    page.goto(f"{site.url}/notebooks/results.html")
    page.wait_for_selector(".lrd-on svg")
    page.emulate_media(media="print")
    assert page.locator(".lrd-live > img").first.is_visible()
    assert not page.locator(".lrd-drawn").first.is_visible()
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_live_figures_are_as_wide_as_there_is_room(site, browser, width):
    page, faults = opened(browser, width)
    page.goto(f"{site.url}/notebooks/results.html")
    page.wait_for_selector(".lrd-on svg")
    room, drawn = (page.locator(where).first.bounding_box() for where in (".lrd-on", ".lrd-on svg"))
    assert 0.6 * room["width"] < drawn["width"] <= room["width"] + 1
    assert page.evaluate(SETTLED) == [] and faults == []
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_explore_follows_the_choice_and_its_address_restores_it(site, browser, width):
    page, faults = opened(browser, width)
    page.goto(f"{site.url}/notebooks/explore.html")
    page.wait_for_selector("#lrd-explore .lrd-on svg")
    names = page.locator("#lrd-explore tbody th")
    begun = ["outcome-r1-s0", "process-full-s0", "outcome-r1-s1", "process-r4-s1", "distillation-r16-s1"]
    assert names.all_inner_texts() == [*begun, "outcome-r1-s2", "distillation-r4-s2", "distillation-full-s2"]
    page.locator("select[name=metric]").select_option("reward")
    page.get_by_label("outcome", exact=True).uncheck()
    page.get_by_label("full fine-tuning").uncheck()
    left = ["process-r4-s1", "distillation-r16-s1", "distillation-r4-s2"]
    sync_api.expect(names).to_have_text(left)
    sync_api.expect(page.locator("#lrd-explore svg").first).to_contain_text("reward an episode")
    address = page.url
    assert "metric=reward" in address and "rewards=process%2Cdistillation" in address

    other, more = opened(browser, width)
    other.goto(address)
    other.wait_for_selector("#lrd-explore .lrd-on svg")
    assert other.locator("#lrd-explore tbody th").all_inner_texts() == left
    assert other.locator("select[name=metric]").input_value() == "reward"
    other.locator("#lrd-explore tbody a").first.click()
    other.wait_for_url("**/runs/tiny/process-r4-s1/cell.html")
    for each in ("seeds=9", "preset=no&metric=such&rewards=x&arms=&seeds=%22"):  # of some other book
        page.goto(f"{site.url}/notebooks/explore.html#{each}")
        sync_api.expect(names).to_have_count(0)
    assert faults == more == []
    assert not re.search(r"require(\.min)?\.js|html-manager|unpkg|jsdelivr\.net/npm|cdnjs", page.content())
    for each in (page, other):
        each.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_gallery_pages_sorts_filters_and_leads_to_cells(site, browser, width):
    page, faults = opened(browser, width)
    page.goto(f"{site.url}/notebooks/gallery.html")
    rows = page.locator("#lrd-gallery tbody tr:not(.dtrg-group)")
    page.wait_for_selector("#lrd-gallery tbody svg.lrd-spark")
    assert rows.count() == 50  # of 108, on its first page
    groups = page.locator("tr.dtrg-group")
    assert groups.all_inner_texts() == ["tiny: 5 of 54 cells finished"]
    page.locator(".dt-paging button", has_text="2").click()
    sync_api.expect(groups).to_have_text(["tiny: 5 of 54 cells finished", "paper: 1 of 54 cells finished"])
    page.locator(".dt-paging button", has_text="3").click()
    sync_api.expect(rows).to_have_count(8)
    final = page.locator("#lrd-gallery thead th", has_text="final")
    for order, first in (("asc", "–"), ("desc", "0.800")):  # within the preset, by which the table stays sorted
        final.click()
        sync_api.expect(final).to_have_class(re.compile(f"dt-ordering-{order}"))
        assert rows.first.locator("td").nth(4).inner_text() == first
    assert "outcome-r1-s2" in rows.first.inner_text() and "0.800" in rows.first.inner_text()
    page.locator(".dt-search input").fill("process finished")
    assert rows.count() == 1 and "process-r4-s1" in rows.first.inner_text()
    page.locator(".dt-search input").fill("script")  # what a run says of itself is text
    assert "<script>console.error(1)</script>" in rows.first.inner_text()
    page.locator(".dt-search input").fill("process finished")
    rows.first.locator("a").click()
    page.wait_for_url("**/runs/tiny/process-r4-s1/cell.html")
    assert faults == []
    page.context.close()


@pytest.mark.slow
def test_faults_are_noticed(site, browser):
    """A page on which everything is wrong; without it the tests above could pass by seeing nothing."""
    planted = r"""<img src="missing.png"><script src="https://elsewhere.invalid/x.js"></script>
      <script>console.error("planted"); setTimeout(() => { throw Error("thrown") })</script>
      <a href="nowhere.html">a</a><a href="metrics.html#nowhere">b</a>
      <span class="math">\(\frac{\)</span><div style="width: 3000px">wide</div>"""
    text = (site.html / "book" / "metrics.html").read_text()
    page = site.html / PLANTED
    page.write_text(text.replace("</article>", f"{planted}</article>", 1))
    try:
        found = "\n".join(faults_of(site, browser, PLANTED, WIDE))
    finally:
        page.unlink()
    for fault in (
        "console: planted",
        "uncaught: thrown",
        "request to elsewhere: https://elsewhere.invalid/x.js",
        "failed request: 404",
        "broken image: missing.png",
        "broken link: /book/nowhere.html",
        "broken link: /book/metrics.html#nowhere",
        "math is not rendered",
        "px wider than its window",
        "image-alt: <img",
    ):
        assert fault in found, (fault, found)
