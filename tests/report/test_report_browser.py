"""The page in a real browser: a quiet console, no network, no sideways scrolling, all that clicks."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from report.forged_bench import forge_bench
from subspace.report.compare import compare

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
ARMS = ("full", "lora", "galore")
FIRST_LINE = """cell => {
  const words = document.createRange();
  words.selectNodeContents(cell.lastChild);
  const line = words.getClientRects()[0];
  return [line.left, line.top, line.bottom];
}"""
NEXT_FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return compare([forge_bench(folder / "bench", arms=ARMS, seeds=(0, 1, 2), items=30)], folder / "out").page


def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    """Return the open page and a list of whatever it complained of or asked for."""
    view = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    found: list[str] = []
    view.on("console", lambda message: found.append(f"console: {message.text}"))
    view.on("pageerror", lambda error: found.append(f"error: {error}"))
    view.on("request", lambda request: found.append(request.url))
    view.goto(path.as_uri())
    return view, found


@pytest.mark.parametrize("language", ["en", "zh-Hans"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "light"), (1280, "dark"), (390, "dark")])
def test_it_opens_quietly_at_every_width(browser: Any, page_file: Path, width: int, scheme: str, language: str) -> None:
    view, found = opened(browser, page_file, width, scheme)
    view.click(f"[data-language={language}]")
    for part in view.query_selector_all("details"):
        part.evaluate("part => { part.open = true; }")
    assert [url for url in found if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in found if url.startswith("file:")]) == 1
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    shown = view.inner_text("h1")
    assert any("\u4e00" <= sign <= "\u9fff" for sign in shown) == (language == "zh-Hans")
    view.context.close()


def test_the_switch_changes_words_titles_and_tips(browser: Any, page_file: Path) -> None:
    view, _ = opened(browser, page_file)
    english = view.inner_text("main"), view.title(), view.get_attribute(".matrix td[data-tip]", "data-tip")
    view.click("[data-language=zh-Hans]")
    chinese = view.inner_text("main"), view.title(), view.get_attribute(".matrix td[data-tip]", "data-tip")
    assert all(before != after for before, after in zip(english, chinese, strict=True))
    assert "排名" not in english[0]
    assert "Ranking" not in chinese[0]
    assert view.evaluate("document.documentElement.lang") == "zh-Hans"
    view.click("[data-language=en]")
    assert (view.inner_text("main"), view.title()) == english[:2]
    view.context.close()


def test_a_key_hides_the_lines_of_its_arm(browser: Any, page_file: Path) -> None:
    view, _ = opened(browser, page_file)
    line = view.locator("#curves polyline.line[data-arm='1']").first
    assert line.is_visible()
    view.click("#curves [data-key='1']")
    assert not line.is_visible()
    assert view.get_attribute("#curves [data-key='1']", "aria-pressed") == "false"
    assert view.locator("#curves polyline.line[data-arm='0']").first.is_visible()
    view.click("#curves [data-key='1']")
    assert line.is_visible()
    view.context.close()


def test_a_table_is_sorted_by_a_click_and_back(browser: Any, page_file: Path) -> None:
    view, _ = opened(browser, page_file)

    def seconds() -> list[float]:
        return [float(cell.get_attribute("data-key")) for cell in view.query_selector_all("#runs td:nth-child(7)")]

    before = seconds()
    view.click("#runs th:nth-child(7) button")
    assert seconds() == sorted(before) != before
    view.click("#runs th:nth-child(7) button")
    assert seconds() == sorted(before, reverse=True)
    view.context.close()


def test_one_cost_is_shown_at_a_time(browser: Any, page_file: Path) -> None:
    view, _ = opened(browser, page_file)
    bodies = view.query_selector_all("#cost .choice:first-of-type [data-chosen]")
    assert [body.is_visible() for body in bodies[:4]] == [True, False, False, False]
    view.click("#cost .choice:first-of-type [data-choice='2']")
    assert [body.is_visible() for body in bodies[:4]] == [False, False, True, False]
    view.context.close()


def test_hovering_tells_step_and_values(browser: Any, page_file: Path) -> None:
    view, found = opened(browser, page_file)
    plot = view.locator("#curves .plot").first
    plot.scroll_into_view_if_needed()
    view.evaluate(NEXT_FRAME)  # only then comes the event of scrolling, which hides the tip
    box = plot.bounding_box()
    view.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    view.locator(".tip").wait_for(state="visible")
    told = view.inner_text(".tip").splitlines()
    assert 55 <= int(told[0]) <= 65  # half of 120 steps
    values = {line.split()[0]: float(line.split()[-1]) for line in told[1:]}
    assert set(values) == set(ARMS)
    assert all(0.3 < value < 1.5 for value in values.values())
    view.mouse.move(5, 5)
    view.locator(".tip").wait_for(state="hidden")
    assert [url for url in found if not url.startswith("file:")] == []
    view.context.close()


@pytest.fixture(scope="module")
def judged_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    arms = ("full", "lora", "apollo, rank 16")
    bench = forge_bench(folder / "bench", arms=arms, tasks=("word-problems",), seeds=(0, 1), items=9)
    return compare([bench], folder / "out", reference="full").page


@pytest.mark.parametrize("width", [390, 1280])
def test_a_swatch_stands_beside_its_name(browser: Any, judged_file: Path, width: int) -> None:
    view, _ = opened(browser, judged_file, width)
    cells = view.query_selector_all("#gates td:first-child")
    assert len(cells) == 2
    for cell in cells:
        swatch = cell.query_selector(".swatch").bounding_box()
        left, top, bottom = cell.evaluate(FIRST_LINE)
        assert top <= swatch["y"] <= swatch["y"] + swatch["height"] <= bottom
        assert swatch["x"] + swatch["width"] < left
    view.context.close()


def test_a_table_that_is_cut_has_a_shade_at_its_edge_until_its_end(browser: Any, judged_file: Path) -> None:
    from matplotlib.image import imread

    view, _ = opened(browser, judged_file, 390)
    box = view.locator("#gates .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.scroll_into_view_if_needed()

    def brightness() -> float:
        """Return the mean brightness of the right edge, above the words of the head."""
        place = box.bounding_box()
        strip = {"x": place["x"] + place["width"] - 3, "y": place["y"] + 1, "width": 2, "height": 2}
        return float(imread(io.BytesIO(view.screenshot(clip=strip)))[..., :3].mean())

    begun = brightness()
    box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    view.evaluate(NEXT_FRAME)
    assert begun < brightness() - 0.1
    view.context.close()


def test_without_scripts_everything_is_there(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(page_file.as_uri())
    assert all(body.is_visible() for body in view.query_selector_all("#cost [data-chosen]"))
    assert view.inner_text("h1")
    context.close()
