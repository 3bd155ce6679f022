"""The same checks on every Python that abkit supports: `python3 dev.py run nox`."""

from __future__ import annotations

import nox

PYTHONS = ("3.11", "3.12", "3.13")

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def install(session: nox.Session) -> None:
    """Install what the lock pins, and then this project, as `dev.py` does."""
    session.install("--require-hashes", "--requirement", "requirements.lock")
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the quick tests; arguments go to pytest."""
    install(session)
    session.run("pytest", *(session.posargs or ("-m", "not slow")))


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHONS)
def types(session: nox.Session) -> None:
    """Check types, strictly, against each Python's own standard library."""
    install(session)
    session.run("mypy", "--python-version", str(session.python), *session.posargs)
