"""What is kept of a run of the plan, and what its page says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.errors import DataError
from holdtrue.plan import Runner, run_markdown
from holdtrue.references import PlanRun, RanStep
from holdtrue.running import training_lock
from holdtrue.runs import recorded_run, recorded_step, runs_of
from holdtrue.status import status_text
from holdtrue.store import alone
from holdtrue.system import System

Make = Callable[..., System]
AT = datetime(2026, 1, 1, tzinfo=UTC)


def runs(system: System) -> list[PlanRun]:
    return runs_of(system.store, "small")


def told(run: PlanRun) -> list[tuple[str, str]]:
    return [(step.step, step.state) for step in run.steps]


def page(system: System) -> str:
    return system.store.path("reports", "small", "run.html").read_text()


def fail(err: BaseException) -> None:
    raise err


def test_a_run_says_what_each_step_took(system: Make) -> None:
    system().apply(until="split", trigger="asked")
    (run,) = runs(system())
    assert [step for step, _ in told(run)] == ["extract", "check", "profile", "split"]
    assert {state for _, state in told(run)} == {"done"}
    assert [(step.rows_in, step.rows_out) for step in run.steps] == [
        (None, 600),
        (600, 600),
        (600, None),
        (600, 600),
    ]
    assert (run.trigger, run.until, run.failed, run.result) == (
        "asked",
        "split",
        None,
        "split is done",
    )
    assert run.seconds is not None
    spent = sum(step.seconds or 0 for step in run.steps)
    assert spent + run.between_s == pytest.approx(run.seconds)
    assert all(step.cpu_seconds is not None for step in run.steps)
    begins = [step.began for step in run.steps]
    assert begins == sorted(begins)
    assert run.began <= begins[0]


def test_the_record_of_a_step_has_it_too(system: Make) -> None:
    from holdtrue.plan import Journal

    system().apply(until="extract")
    record = Journal(system().store, "small").last("extract")
    assert record is not None
    (step,) = runs(system())[0].steps
    assert record.cpu_seconds is not None
    assert step.cpu_seconds is not None
    assert step.cpu_seconds >= record.cpu_seconds > 0
    assert record.peak_memory_bytes is None or record.peak_memory_bytes > 10_000_000


def test_a_run_with_nothing_to_do_is_none_to_remember(system: Make) -> None:
    system().apply(until="split")
    before = page(system())
    system().apply(until="split")
    assert len(runs(system())) == 1
    assert page(system()) == before
    system("data.contract", {"rows": {"min": 200}}).apply(until="check")
    newest, _ = runs(system())
    assert told(newest) == [("extract", "found"), ("check", "done")]


def test_why_a_run_failed_is_on_its_page_and_in_the_status(system: Make, project: Path) -> None:
    system().apply(until="split")
    (project / "rows.csv").write_text(
        (project / "rows.csv").read_text() + "600,2024-01-30,1,1,red,1\n"
    )
    broken = system("data.contract", {"rows": {"min": 10_000}})
    with pytest.raises(DataError):
        broken.apply(until="split")
    failed, earlier = runs(broken)
    assert told(failed) == [("extract", "done"), ("check", "failed")]
    assert failed.failed is not None
    assert failed.failed in page(broken)
    assert f"failed: {failed.failed}" in page(broken)
    assert earlier.result in page(broken)
    found = broken.status()
    assert found.last_run == failed
    assert "; it failed" in status_text(found)
    with pytest.raises(DataError):  # the same once more: no step is done, and nothing is kept
        broken.apply(until="split")
    assert runs(broken) == [failed, earlier]


def test_a_refused_run_leaves_nothing(system: Make) -> None:
    refused = system("data.target", "none")
    with pytest.raises(DataError):
        refused.apply(until="split")
    assert runs(refused) == []
    assert not refused.store.path("systems", "small.runs").exists()
    assert not refused.store.path("reports", "small").exists()


def test_the_front_page_and_the_markdown_lead_to_it(system: Make) -> None:
    small = system()
    small.apply(until="check")
    front = small.store.path("reports", "small", "index.html").read_text()
    assert 'href="run.html"' in front
    said = run_markdown(small.context())
    assert "| check | done |" in said
    assert "| apply |" in said


def test_a_task_that_does_a_step_and_the_flow_that_finds_it_are_one(system: Make) -> None:
    context = system().context()
    with alone(training_lock(context.store, "small"), "a training"), recorded_run(context, None):
        Runner(context).perform("extract")
        Runner(context).perform("extract")
    assert told(runs(system())[0]) == [("extract", "done")]


def test_each_attempt_at_a_step_is_seen(system: Make) -> None:
    context = system().context()
    with alone(training_lock(context.store, "small"), "a training"), recorded_run(context, None):
        with pytest.raises(DataError), recorded_step(context.store, "small", "extract"):
            fail(DataError("the source is away", hint="wait"))
        Runner(context).perform("extract")
    (run,) = runs(system())
    assert told(run) == [("extract", "failed"), ("extract", "done")]
    assert run.steps[0].said == "the source is away"


def test_a_step_beside_no_run_is_none_of_a_run(system: Make) -> None:
    Runner(system().context()).perform("extract")
    assert runs(system()) == []


def test_what_another_process_does_meanwhile_is_no_part_of_a_run(system: Make) -> None:
    small = system()
    beside = (
        "import sys; from pathlib import Path; from holdtrue.runs import recorded_step\n"
        "from holdtrue.store import Store\n"
        "with recorded_step(Store(Path(sys.argv[1])), 'small', 'ray'): pass"
    )
    lock, context = training_lock(small.store, "small"), small.context()
    with alone(lock, "a training"), recorded_run(context, None):
        Runner(context).perform("extract")
        command = [sys.executable, "-c", beside, str(small.store.root)]
        subprocess.run(command, check=True)  # noqa: S603 - the lines above
    assert told(runs(small)[0]) == [("extract", "done")]


def test_a_run_that_was_killed_did_not_end(system: Make) -> None:
    small = system()
    place = small.store.path("systems", "small.runs", "2026-01-01T000000.000000.json")
    place.parent.mkdir(parents=True)
    killed = PlanRun(
        began=AT,
        as_of=AT,
        trigger="drift",
        until=None,
        steps=(RanStep(step="tune", state="running", began=AT + timedelta(seconds=5)),),
    )
    place.write_text(killed.model_dump_json())
    place.with_name("2025.json").write_text("torn")
    small.apply(until="extract")
    newest, before = runs(small)
    assert newest.result == "extract is done"
    assert before == killed
    assert before.result == "did not end (at tune)"
    assert "did not end (at tune)" in page(small)


def test_the_oldest_runs_are_forgotten(system: Make) -> None:
    small = system()
    folder = small.store.path("systems", "small.runs")
    folder.mkdir(parents=True)
    for day in range(105):
        began = AT - timedelta(days=day)
        run = PlanRun(began=began, ended=began, as_of=AT, trigger="x", until=None)
        (folder / f"{began:%Y-%m-%dT%H%M%S.%f}.json").write_text(run.model_dump_json())
    small.apply(until="extract")
    kept = runs(small)
    assert len(kept) == len(list(folder.iterdir())) == 100
    assert kept[-1].began == AT - timedelta(days=98)
    assert "The last 20 of 100." in page(small)


@pytest.mark.parametrize(
    ("gate", "register", "result"),
    [
        ("may be promoted: all hold", "version 2, the champion", "version 2, the champion"),
        ("refused: too low", "version 2, registered", "refused: too low; version 2, registered"),
    ],
)
def test_the_result_in_words(gate: str, register: str, result: str) -> None:
    said = {"gate": gate, "register": register, "serve": "version 2 answers"}
    steps = tuple(
        RanStep(step=name, state="done", began=AT, seconds=1.0, said=words)
        for name, words in said.items()
    )
    run = PlanRun(began=AT, ended=AT, as_of=AT, trigger="x", until=None, steps=steps)
    assert run.result == result


def test_a_run_that_was_stopped_says_so(system: Make) -> None:
    context = system().context(trigger="drift")

    def stopped() -> None:
        lock = training_lock(context.store, "small")
        with alone(lock, "a training"), recorded_run(context, None):
            Runner(context).perform("extract")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (run,) = runs(system())
    assert (run.trigger, run.until, run.failed) == ("drift", None, "it was stopped")
