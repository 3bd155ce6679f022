"""Each page, run by Streamlit's AppTest on real workspaces."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from streamlit.testing.v1 import AppTest

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
