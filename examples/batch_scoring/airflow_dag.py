"""The same night as a DAG of Airflow 3: a task a command, so that each can be started again alone.

`{{ ds }}` is the date of the run. Copy it into your DAGs folder; nothing here imports it.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

DATABASE = "/srv/batch/data/predictions.duckdb"
WORKSPACE = "/srv/batch/data/workspace"
NIGHT = "{{ ds }}"
BEFORE = "{{ macros.ds_add(ds, -1) }}"

COMMANDS = {
    "labels": f"abkit batch labels {DATABASE} /srv/batch/data/labels/{BEFORE}.csv "
    f"--name employment --run {BEFORE} --entity id --label employed --threshold 0.5 "
    f"--metric wrong --workspace {WORKSPACE}",
    "decide": f"abkit controller {WORKSPACE} --once",
    "assign": f"abkit batch assign {DATABASE} applicants --unit id --experiment employment "
    f"--workspace {WORKSPACE} --run {NIGHT}",
    "score": f"abkit batch score {DATABASE} applicants --name employment --unit id "
    f"--run {NIGHT} --model models:linear --model-version 1 --variant tree=models:tree@1",
    "swap": f"abkit batch swap {DATABASE} employment --max-drift 0.25 --reason {NIGHT}",
}

with DAG(
    "abkit_nightly",
    schedule="15 2 * * *",
    start_date=pendulum.datetime(2026, 11, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": pendulum.duration(minutes=5), "cwd": "/srv/batch"},
):
    before = None
    for name, command in COMMANDS.items():
        task = BashOperator(task_id=name, bash_command=command)
        if before is not None:
            before >> task
        before = task
