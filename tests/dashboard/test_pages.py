"""Each page, run by Streamlit's AppTest on real workspaces."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from streamlit.testing.v1 import AppTest

from abkit.client import Client
from abkit.controller import Controller
from abkit.decision import Guardrail, Objective, Policy
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENS = Path(__file__).parents[2] / "dashboard" / "screens"


def run(page: str, folder: Path | None, **query: str) -> AppTest:
    if folder is None:
        os.environ.pop("ABKIT_WORKSPACE", None)
    else:
        os.environ["ABKIT_WORKSPACE"] = str(folder)
    app = AppTest.from_file(str(SCREENS.parent / "app.py"), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if page != "experiments.py":
        app.switch_page(f"screens/{page}").run()
    assert not app.exception, app.exception
    return app


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = os.environ.get("ABKIT_WORKSPACE")
    yield
    if before is None:
        os.environ.pop("ABKIT_WORKSPACE", None)
    else:
        os.environ["ABKIT_WORKSPACE"] = before


def text(app: AppTest) -> str:
    parts = [*app.title, *app.subheader, *app.markdown, *app.caption, *app.text, *app.warning]
    parts += [*app.error, *app.info]
    links = [str(link.proto.label) for link in app.get("page_link")]
    # Text from data is escaped in markdown; people see it without the backslashes.
    return "\n".join([*links, *(str(part.value) for part in parts)]).replace("\\", "")


def test_the_overview_names_every_rollout_with_its_state(workspace: Path) -> None:
    shown = text(run("experiments.py", workspace))
    for word in ("bad-canary", "halted", "good-canary", "promoted", "live-canary", "canary"):
        assert word in shown


def test_what_was_halted_by_itself_comes_first(workspace: Path) -> None:
    app = run("experiments.py", workspace)
    words = [link.proto.label.replace("\\", "") for link in app.get("page_link")]
    keys = [label.partition("**")[2].partition("**")[0] for label in words]
    # The live one is among them once its data is old.
    assert {"bad-canary", "by-hand"} <= set(keys[:3])
    assert keys[3] == "good-canary"
    assert any("halted by itself" in item.value for item in app.markdown)


def test_the_experiment_page_says_why_a_canary_was_halted(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="bad-canary")
    shown = text(app)
    assert "bad-canary" in shown
    assert "error is worse in treatment" in shown
    assert "passed 100" in shown
    assert app.selectbox(key="rollout").value == "bad-canary"


def test_the_log_shows_the_changes_and_every_look(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="good-canary")
    changes = app.table[0].value
    assert [word.split()[-1] for word in changes["Decision"]] == ["promote", "advance"]
    app.segmented_control(key="log").set_value("all looks").run()
    assert len(app.table[0].value) > len(changes)


def test_a_chosen_look_shows_its_whole_record(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="bad-canary")
    app.number_input(key="look").set_value(1).run()
    assert not app.exception
    assert "decision_id" in str(app.json[0].value)


def test_hostile_words_stay_words(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="by-hand")
    shown = text(app)
    assert "alert(1)" in shown
    for markdown in app.markdown:
        assert "<script>" not in markdown.value.replace("\\<", "")
        assert "](https://evil" not in markdown.value


def test_another_rollout_is_shown_when_the_address_names_none(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="nope")
    assert any("nope" in item.value for item in app.warning)


@pytest.mark.parametrize("page", ["experiments.py", "experiment.py"])
def test_an_empty_workspace_says_what_to_do(page: str, tmp_path: Path) -> None:
    Workspace(tmp_path / "empty").create()
    app = run(page, tmp_path / "empty")
    shown = text(app) + "\n".join(item.value for item in app.code)
    assert "abkit rollout start" in shown or "abkit demo" in shown


@pytest.mark.parametrize("page", ["experiments.py", "experiment.py"])
@pytest.mark.parametrize("folder", [None, "absent"])
def test_a_missing_workspace_is_named(page: str, folder: str | None, tmp_path: Path) -> None:
    app = run(page, None if folder is None else tmp_path / folder)
    shown = text(app)
    assert "ABKIT_WORKSPACE" in shown or "absent" in shown


def test_a_damaged_published_file_does_not_hide_the_state(workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    (copy / "store" / "published.duckdb").write_bytes(b"garbage")
    shown = text(run("experiment.py", copy, rollout="bad-canary"))
    assert "halted" in shown
    assert "published.duckdb" in shown or "cannot read" in shown


def test_a_damaged_state_file_is_named_and_hides_no_other(workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    (copy / "rollouts" / "by-hand.json").write_text("{")
    shown = text(run("experiments.py", copy))
    assert "by-hand.json" in shown
    assert "bad-canary" in shown


def test_an_address_shows_the_same_view_again(workspace: Path) -> None:
    view = {"rollout": "good-canary", "log": "all looks", "look": "2"}
    app = run("experiment.py", workspace, **view)
    assert app.selectbox(key="rollout").value == "good-canary"
    assert app.segmented_control(key="log").value == "all looks"
    assert app.number_input(key="look").value == 2
    assert "Look 2" in text(app)


def test_a_look_that_is_not_there_is_forgotten(workspace: Path) -> None:
    app = run("experiment.py", workspace, rollout="good-canary", look="99999")
    assert app.number_input(key="look").value is None


def test_a_live_canary_says_what_it_waits_for(workspace: Path) -> None:
    shown = text(run("experiment.py", workspace, rollout="live-canary"))
    assert "No harm shown, and not decided yet" in shown
    assert "harm e-value of 100 halts it" in shown
    assert "of 100 units" in shown


def test_what_a_person_did_stands_in_the_log(workspace: Path) -> None:
    log = run("experiment.py", workspace, rollout="by-hand").table[0].value
    assert "mallory" in log["By"].iloc[0]
    assert "halted" in log["Decision"].iloc[0]


def test_every_event_is_accounted_for(workspace: Path) -> None:
    accepted = sum(item.accepted for item in StoreReader(workspace).writers())
    told = f"{accepted:,} events accepted = {accepted:,} stored"
    assert told in text(run("experiments.py", workspace))


def test_before_anything_is_published_the_state_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    plan = Rollout.plan("first", experiment="ranker", control="old", treatment="new")
    Workspace(folder).start(plan)
    for page in ("experiments.py", "experiment.py"):
        app = run(page, folder)
        assert "first" in text(app)
        assert "Nothing published yet" in text(app)
        assert f"abkit controller {folder}" in "".join(item.value for item in app.code)


def test_a_published_file_of_another_shape_is_called_damaged(
    workspace: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    published = copy / "store" / "published.duckdb"
    published.unlink()
    with duckdb.connect(published) as connection:
        connection.execute("CREATE TABLE nothing (i INTEGER)")
    for page in ("experiments.py", "experiment.py"):
        assert "cannot be read" in text(run(page, copy))


def test_free_text_everywhere_stays_text(tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    metric = Metric(key="error", direction="decrease", unit_of_measure="[u](https://evil.example)")
    plan = Rollout.plan(
        "hostile",
        experiment="ranker",
        control="old",
        treatment="new",
        metrics=(metric,),
        policy=Policy(guardrails=(Guardrail(metric="error", test="difference", margin=1.0),)),
        stages=(
            Stage(name="![i](https://evil.example/x.png)", share=0.1),
            Stage(name="<img src=x onerror=alert(1)> $y$ :red[z]", share=0.5),
        ),
    )
    Workspace(folder).start(plan, actor="[me](https://evil.example)")
    with Client(folder, poll_seconds=0.0) as client, Controller(folder) as controller:
        for number in range(400):
            assigned = client.assign("ranker", f"u{number}", default="old")
            client.expose(assigned)
            client.record(f"u{number}", "error", 1.0 + number % 7)
        client.flush()
        controller.tick()
    effective = re.compile(r"(?<!\\)(\]\(|<img|\$y|:red\[)|://")
    for page in ("experiments.py", "experiment.py"):
        app = run(page, folder)
        values = [str(item.value) for item in (*app.markdown, *app.caption, *app.title)]
        assert any("evil" in value for value in values)
        assert [value for value in values if effective.search(value)] == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.61, "0.6 s"),
        (59, "59 s"),
        (587, "9 min 47 s"),
        (7_380, "2 h 3 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_the_age_of_data_is_told_in_its_largest_units(seconds: float, said: str) -> None:
    import words

    assert said in words.age_badge(seconds, live=False).text
    assert words.age_badge(seconds, live=False).colour == "gray"
    assert words.age_badge(seconds, live=True).colour == ("gray" if seconds < 30 else "yellow")


def test_only_new_looks_are_read(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import data

    asked: list[int | None] = []
    real = StoreReader.decisions

    def counted(self: StoreReader, rollout: str, *, limit: int | None = None) -> Any:
        asked.append(limit)
        return real(self, rollout, limit=limit)

    monkeypatch.setattr(StoreReader, "decisions", counted)
    tail = data.Tail(str(workspace), "good-canary")
    first = tail.at(data.Published(workspace, (1, 1, 1), 0.0))
    assert tail.at(data.Published(workspace, (1, 1, 1), 0.0)) is first
    assert tail.at(data.Published(workspace, (2, 1, 1), 0.0)) == first
    assert asked == [data.MOST_LOOKS, data.NEWEST_LOOKS]


def contest(writer: Any) -> None:
    """Start a rollout of three treatments."""
    bought = Metric(key="bought", kind="proportion", missing="exclude")
    writer.workspace.start(
        Rollout.plan(
            "contest",
            experiment="shop",
            control="old",
            treatment="a",
            rivals=("b", "c"),
            policy=Policy(
                guardrails=(Guardrail(metric="error", margin=3.0),),
                objectives=(Objective(metric="bought"),),
            ),
            metrics=(bought,),
            stages=(
                Stage(name="30 %", share=0.3, min_units=60),
                Stage(name="60 %", share=0.6, min_units=200),
            ),
            salt="salt-of-contest",
        )
    )


def serve_contest(writer: Any, errors: dict[str, float], bought: dict[str, float]) -> None:
    for _ in range(400):
        unit = f"shopper-{writer._served}"
        writer._served += 1
        assigned = writer.client.assign("shop", unit, default="old")
        writer.client.expose(assigned)
        for metric, rates in (("error", errors), ("bought", bought)):
            hit = writer._random.random() < rates[assigned.variant]
            writer.client.record(unit, metric, hit)
    writer.controller.tick()


def test_several_treatments_are_told_apart_from_start_to_winner(writer: Any) -> None:
    folder = writer.workspace.path
    errors, bought = {"old": 0.05, "a": 0.05, "b": 0.4, "c": 0.05}, {"old": 0.2, "a": 0.2}
    bought |= {"b": 0.5, "c": 0.5}
    contest(writer)
    serve_contest(writer, dict.fromkeys(errors, 0.05), bought)
    shown = text(run("experiment.py", folder, rollout="contest"))
    assert "a, b, c against old" in shown
    assert "b: error" in shown
    assert "a, b, c against old" in text(run("experiments.py", folder))
    while writer.workspace.rollout("contest").live:
        serve_contest(writer, errors, bought)
    app = run("experiment.py", folder, rollout="contest")
    assert "c: bought" in text(app)
    app.number_input(key="look").set_value(1).run()
    assert not app.exception
    rows = app.dataframe[0].value
    assert list(rows["variant"]) == ["a", "a", "b", "b", "c", "c"]
    app.segmented_control(key="metric").set_value("bought").run()
    assert not app.exception
    assert not run("experiments.py", folder).exception


def test_all_treatments_harmed_are_named(writer: Any) -> None:
    contest(writer)
    errors = {"old": 0.05, "a": 0.6, "b": 0.6, "c": 0.6}
    while writer.workspace.rollout("contest").live:
        serve_contest(writer, errors, dict.fromkeys(errors, 0.2))
    assert writer.workspace.rollout("contest").state == "halted"
    shown = text(run("experiment.py", writer.workspace.path, rollout="contest"))
    assert "error" in shown
    assert "halted" in shown
