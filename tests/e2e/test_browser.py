"""What people look at: the reports, and the runs in the Prefect UI."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.e2e,
    # The driver of the browser is closed by the fixture, but its pipes by the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    with browser.new_context() as context:
        yield context.new_page()


def test_the_reports_show_their_plots_and_fetch_nothing(page, whole_loop):
    folder = whole_loop.project.home / "reports" / "flights-small"
    problems, requests = [], []
    page.on(
        "console", lambda m: problems.append(m.text) if m.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    reports = sorted(folder.rglob("*.html"))
    assert len(reports) == 9
    for report in reports:
        page.goto(report.as_uri())
        assert "flights-small" in page.title()
        assert page.locator("h1").first.is_visible()
        if report.name == "index.html":
            continue
        boxes = [plot.bounding_box() for plot in page.locator("svg:visible").all()]
        assert boxes, report
        assert all(min(box["width"], box["height"]) > 20 for box in boxes), report
    assert problems == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}


def test_every_link_of_the_front_page_leads_to_a_report(page, whole_loop):
    index = whole_loop.project.home / "reports" / "flights-small" / "index.html"
    page.goto(index.as_uri())
    links = [link.get_attribute("href") for link in page.locator("a").all()]
    assert len(links) == 8
    assert all((index.parent / link).is_file() for link in links)


def test_the_prefect_ui_shows_the_run_and_its_artifact(page, new_project):
    project = new_project()
    stack = project.stack
    ui = stack.up_prefect().prefect_ui
    known = stack.environment()
    flow = [sys.executable, "-m", "flows.train", str(project.file), "--until", "split"]
    done = subprocess.run(  # noqa: S603
        flow,
        cwd=project.folder,
        env=os.environ | project.environment | known,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = re.search(r"Beginning flow run '([a-z-]+)'", done.stderr)
    assert run is not None, done.stderr

    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(ui)
    page.get_by_placeholder("admin:pass").fill(known["PREFECT_API_AUTH_STRING"])
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard*")
    page.goto(f"{ui}/runs")
    page.get_by_text(run[1]).first.wait_for(timeout=30_000)
    page.goto(f"{ui}/artifacts")
    page.get_by_text("flights-small-data").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_text("The contract holds").first.wait_for(timeout=30_000)
    assert [url for url in requests if not url.startswith((ui, "data:", "blob:"))] == []
    assert project.run("down").startswith("ended Prefect server")
