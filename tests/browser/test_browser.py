"""The real server and a real browser: it shows everything, asks nobody else, refuses strangers and writes nothing."""

import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.server import CHROMIUM, PAGES, await_page, chromium, open_page, served
from playwright.sync_api import expect
from viewer.synthetic import write_all_results, write_run, write_world

pytestmark = pytest.mark.browser

if CHROMIUM is None and os.environ.get("CI") != "true":
    pytest.skip(
        "no Chromium (THERMODL_CHROMIUM, PATH): the browser tests DID NOT RUN",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(runs):
    with served(runs) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "CI needs a Chromium"
    with chromium() as browser:
        yield browser


def fingerprint(root):
    """Every name below a folder with its content and time of change."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_page_is_drawn_and_leaves_no_trace(runs, address, browser, lang, theme):
    before = fingerprint(runs)
    foreign, faults = [], []
    page = browser.new_page(color_scheme=theme)
    page.on("request", lambda request: foreign.append(request.url) if not _own(request.url, address) else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console", lambda message: faults.append(message.text) if "Content Security Policy" in message.text else None
    )
    for name in PAGES:
        open_page(page, f"{address}/{name}?v=1&run=good&lang={lang}", charts={"": 0, "new": 0, "data": 1}.get(name, 2))
        assert page.locator("[data-testid=stException]").count() == 0, name
        assert f"lang={lang}" in page.url
        background = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert (sum(map(int, background[4:-1].split(",")[:3])) < 200) == (theme == "dark")
        assert not _serious_faults(page), name
    page.close()
    assert not foreign
    assert not faults
    assert fingerprint(runs) == before


def _serious_faults(page):
    """What axe calls a serious or critical fault of accessibility, with the first element it was found on."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return {item["id"]: item["nodes"][0]["html"][:300] for item in found if item["impact"] in ("serious", "critical")}


def _own(url, address):
    return urlsplit(url).scheme in ("data", "blob") or urlsplit(url).netloc == urlsplit(address).netloc


@pytest.mark.parametrize("run", ["running", "silent", "no-results", "empty", "truncated-chunk", "damaged-results"])
def test_runs_in_any_condition_give_a_page(address, browser, run):
    page = browser.new_page()
    for name in ("overview", "temperature"):
        open_page(page, f"{address}/{name}?run={run}")
        assert page.locator("[data-testid=stException]").count() == 0
    page.close()


def test_a_first_visitor_of_a_deep_link_gets_the_whole_app(tmp_path, browser):
    write_all_results(write_run(tmp_path / "only"))
    with served(tmp_path) as address:
        page = browser.new_page()
        open_page(page, f"{address}/temperature?lang=zh")
        assert page.locator("h1").inner_text() == "有效温度"
        assert page.locator("[data-testid=stSidebarNavLink]").count() == len(PAGES)
        page.close()


_TALL = {"width": 1280, "height": 1600}
"""a window in which nothing has to be scrolled to: a list that is open closes when its page scrolls"""


def test_pages_and_languages_change_by_clicking_and_the_address_follows(address, browser):
    page = browser.new_page(viewport=_TALL)
    open_page(page, f"{address}/temperature?run=good&group=fc1", charts=1)
    page.get_by_label("Language").click()
    page.get_by_role("option", name="中文").click()
    page.wait_for_function("() => document.querySelector('h1')?.innerText === '有效温度'")
    page.locator("[data-testid=stSidebarNavLink]").filter(has_text="扩散").click()
    page.wait_for_function("() => document.querySelector('h1')?.innerText === '扩散'")
    page.wait_for_url("**/diffusion?*lang=zh*")
    assert "run=good" in page.url
    assert "group=fc1" in page.url
    page.close()


@pytest.mark.parametrize(("button", "suffix", "start"), [("PNG", "png", b"\x89PNG"), ("zip", "zip", b"PK"),
                                                         ("HTML", "html", b"<!doctype html>")])  # fmt: skip
def test_a_button_downloads_a_file_and_writes_nothing(runs, address, browser, button, suffix, start):
    before = fingerprint(runs)
    page = browser.new_page()
    open_page(page, f"{address}/data?run=good&part=diffusion", charts=1)
    with page.expect_download(timeout=60_000) as download:
        # The toolbar of a chart has buttons of its own.
        page.locator("[data-testid=stDownloadButton] button").filter(has_text=button).first.click()
    found = download.value
    assert found.suggested_filename.endswith(f".{suffix}")
    with open(found.path(), "rb") as file:  # noqa: PTH123 - a path of the browser's
        assert file.read(len(start)).lower() == start.lower()
    page.close()
    assert fingerprint(runs) == before


def _await_shown_steps(page, steps):
    """Wait for the sidebar's boxes to show these steps; they fill one after the other while a page is drawn."""
    for label, step in zip(("First step", "Last step"), steps, strict=True):
        expect(page.get_by_label(label)).to_have_value(str(step), timeout=30_000)


_DETAIL = "document.querySelectorAll('[data-testid=stVegaLiteChart]')[1].textContent"
"""the numbers at the axes of the chart below the one to drag across"""


def _drag(page, start, stop):
    """Drag across the first chart, from and to a fraction of its width."""
    chart = page.locator("[data-testid=stVegaLiteChart]").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    y = box["y"] + 0.4 * box["height"]
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    for part in (0.5, 1.0):
        page.mouse.move(box["x"] + (start + part * (stop - start)) * box["width"], y, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("view", ["", "&axis=sgd_time", "&axis=epoch&scale=xy"])
def test_a_dragged_interval_goes_into_the_address_and_the_charts_and_back_again(address, browser, view):
    page = browser.new_page(viewport=_TALL)
    open_page(page, f"{address}/overview?run=good{view}", charts=3)
    _await_shown_steps(page, (0, 2999))
    whole = page.evaluate(_DETAIL)
    _drag(page, 0.3, 0.6)
    page.wait_for_url("**steps=*")
    page.get_by_text("Charts over time show steps").wait_for()
    first, last = map(int, parse_qs(urlsplit(page.url).query)["steps"][0].split("-"))
    _await_shown_steps(page, (first, last))
    assert 0 < first < last < 2999
    page.wait_for_function(f"before => {_DETAIL} !== before", arg=whole)
    assert not _serious_faults(page)
    link = page.url
    page.reload()
    await_page(page, charts=3)
    page.get_by_text("Charts over time show steps").wait_for()
    _await_shown_steps(page, (first, last))
    open_page(page, link.replace("lang=en", "lang=zh"), charts=3)
    page.get_by_text("时间曲线只显示第").wait_for()
    page.go_back()
    await_page(page, charts=3)
    page.get_by_text("Charts over time show steps").wait_for()
    page.get_by_role("button", name="Show all steps").click()
    page.get_by_text("Drag across the chart").wait_for()
    page.wait_for_url(lambda url: "steps=" not in url)
    page.go_back()
    await_page(page, charts=3)
    page.get_by_text("Charts over time show steps").wait_for()
    _await_shown_steps(page, (first, last))
    page.close()


def test_the_axis_is_chosen_by_keyboard_and_the_charts_follow(address, browser):
    page = browser.new_page()
    open_page(page, f"{address}/overview?run=good", charts=3)
    page.get_by_role("combobox", name="Time axis").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(lambda url: "axis=step" not in url)
    chosen = page.url.split("axis=")[1].split("&")[0]
    title = {"sgd_time": "SGD time", "epoch": "epoch", "wall_time": "wall time"}[chosen]
    page.locator("[data-testid=stVegaLiteChart]").nth(1).get_by_text(title).first.wait_for()
    page.close()


def test_a_click_on_a_group_and_on_a_layer_chooses_it(address, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    open_page(page, f"{address}/dissipation?run=good", charts=3)
    points = page.locator("[data-testid=stVegaLiteChart]").nth(2).locator(".mark-symbol.role-mark path")
    points.nth(2).scroll_into_view_if_needed()
    points.nth(2).click(force=True)
    page.wait_for_url(lambda url: "group=all" not in url)
    page.get_by_text("grey: the other groups").first.wait_for()
    assert not _serious_faults(page)
    open_page(page, f"{address}/layers?run=good", charts=2)
    box = page.locator("[data-testid=stVegaLiteChart]").first.bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"])
    page.wait_for_url("**layer=*")
    assert not _serious_faults(page)
    page.close()


def test_a_running_run_grows_before_the_eye_and_keeps_brush_and_scroll(tmp_path, browser):
    folder = write_run(tmp_path / "now", steps=1000, state="running")
    with served(tmp_path) as address:
        page = browser.new_page()
        open_page(page, f"{address}/overview?run=now&steps=100-400", charts=3)
        page.get_by_text("safe on disk: 1,000").wait_for()
        page.get_by_text("Charts over time show steps 100 to 400").scroll_into_view_if_needed()
        scrolled = "document.querySelector('[data-testid=stMain]').scrollTop"
        before = page.evaluate(scrolled)
        metadata = folder / "run.zarr" / "zarr.json"
        content = json.loads(metadata.read_bytes())
        content["attributes"]["committed"]["step"] = 900
        content["attributes"]["last_commit"] += 1
        metadata.write_text(json.dumps(content))
        page.get_by_text("safe on disk: 900").wait_for(timeout=20_000)
        assert page.evaluate(scrolled) == before
        assert "steps=100-400" in page.url
        content["attributes"]["state"] = "finished"
        metadata.write_text(json.dumps(content))
        page.get_by_text("safe on disk").wait_for(state="detached", timeout=20_000)
        page.close()


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def _answer(address, headers, path="/"):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def test_answers_carry_the_security_headers(address):
    headers = _answer(address, {}).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert _answer(address, {}, "/temperature").headers["content-security-policy"] == headers["content-security-policy"]


def test_scripts_are_not_sniffed_and_leave_the_policy_to_their_page(address):
    script = re.search(r'src="\./(static/js/[^"]+)"', _answer(address, {}).body.decode())[1]
    headers = _answer(address, {}, f"/{script}").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in headers


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
@pytest.mark.parametrize("upgrade", [{}, WEBSOCKET])
def test_strangers_are_refused(address, headers, upgrade):
    assert _answer(address, {**headers, **upgrade}).status in (400, 403)


def _view(*arguments):
    command = [sys.executable, "-m", "thermodl.cli", "view", "--no-browser", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_in_use_is_one_sentence(runs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = _view(str(runs), "--port", port)
    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_folder_is_one_sentence(tmp_path):
    result = _view(str(tmp_path / "nowhere"))
    assert result.returncode == 2
    assert "there is no folder" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_draws_itself_from_disk_without_a_network(runs, tmp_path, browser, lang):
    from thermodl.viewer.report import write_report

    file = write_report(runs / "good", tmp_path / "report.html", lang)
    requests, faults = [], []
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    charts = page.locator(".chart").count()
    page.locator(".chart svg.marks").nth(charts - 1).wait_for()
    page.close()
    assert requests == [file.as_uri()]
    assert not faults
