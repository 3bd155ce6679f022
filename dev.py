#!/usr/bin/env python3
"""Everything a newcomer needs, in one command: `python3 dev.py demo`, `python3 dev.py test`.

The first run makes `.venv`, puts uv in it, installs what `requirements.lock` pins (hash-checked)
and then this project, editable. Later runs find a stamp inside of the environment and start at
once. ABKIT_VENV names another folder for the environment. Only the standard library is used here,
and an older Python is told what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
CONFORMANCE_LOCK = ROOT / "requirements-conformance.lock"
VENV = Path(os.environ.get("ABKIT_VENV") or ROOT / ".venv").absolute()
BIN = VENV / "bin"
PYTHON = BIN / "python"
UV = BIN / "uv"
STAMP = VENV / ".abkit-stamp"
UV_REQUIREMENT = "uv>=0.9,<1"
CACHES = (
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".nox",
    ".pytest_cache",
    ".ruff_cache",
    "build",
    "dist",
)


# ---- speaking and starting processes ------------------------------------------------------------


def say(text: str) -> None:
    """Tell the person at the terminal; stdout belongs to the command (`demo --json`)."""
    print(text, file=sys.stderr, flush=True)


def stop(text: str, code: int = 1) -> NoReturn:
    """End with one clear line."""
    say(f"dev.py: {text}")
    sys.exit(code)


def shown(path: Path) -> str:
    """Return the path as a person would type it from the project's folder."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def environment() -> dict[str, str]:
    """Return the variables for every child: the environment first on the path, bytecode written.

    Without bytecode statsmodels alone took 8.6 s to import instead of 2.5 s, in every process.
    """
    env = dict(os.environ)
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONHOME"):
        env.pop(name, None)
    env["VIRTUAL_ENV"] = str(VENV)
    env["PATH"] = os.pathsep.join([str(BIN), env.get("PATH", os.defpath)])
    return env


def call(*args: str | Path, quiet: bool = False) -> int:
    """Run one step in the project's folder and return its exit code, 128 + n for signal n."""
    where = subprocess.DEVNULL if quiet else None
    done = subprocess.run(args, cwd=ROOT, env=environment(), stderr=where, check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def set_up(*args: str | Path) -> bool:
    """Run one step of the set-up, all its words on stderr, and tell whether it worked."""
    done = subprocess.run(args, cwd=ROOT, env=environment(), stdout=sys.stderr, check=False)
    return done.returncode == 0


def become(program: str | Path, *args: str | Path) -> NoReturn:
    """Turn into a program of the environment: its signals and exit code are then its own."""
    sys.stdout.flush()
    try:
        os.execvpe(program, [str(program), *map(str, args)], environment())
    except FileNotFoundError:
        stop(f"{program}: not found, neither in {shown(VENV)} nor on the path", 127)


# ---- the environment ----------------------------------------------------------------------------


def fingerprint() -> str:
    """Return one line that changes with the lock, the project, the Python or the folder."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for file in (LOCK, ROOT / "pyproject.toml"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_ready() -> bool:
    """Tell whether the environment exists and was made from the files as they are now."""
    return PYTHON.exists() and STAMP.is_file() and STAMP.read_text("utf-8") == fingerprint()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one set-up run at a time: a second terminal waits for the first."""
    with LOCK.open("rb") as handle:
        with contextlib.suppress(ImportError):
            import fcntl  # noqa: PLC0415 - some systems have none, and go without the lock

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting: another dev.py is setting up")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def venv_works() -> bool:
    """Tell whether the folder holds an environment of this Python's version that still starts."""
    if not PYTHON.exists():
        return False
    wrong_version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return call(PYTHON, "-I", "-c", wrong_version, quiet=True) == 0


def make_venv() -> None:
    """Make the environment, or keep the one that works."""
    version = ".".join(map(str, sys.version_info[:3]))
    if venv_works():
        say(f"1/3 {shown(VENV)} is there")
        return
    if VENV.exists() and not (VENV / "pyvenv.cfg").is_file() and any(VENV.iterdir()):
        stop(f"{VENV} holds something else than a Python environment: set ABKIT_VENV to another", 2)
    hint = "On Debian or Ubuntu: `apt install python3-venv`, then the same command again."
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            stop(f"cannot make {shown(VENV)}: {sys.executable} has no {module} module. {hint}")
    say(f"1/3 making {shown(VENV)} with Python {version}")
    if not set_up(sys.executable, "-m", "venv", "--clear", VENV):
        stop(f"could not make {shown(VENV)}. {hint}")


def install_uv() -> bool:
    """Put uv into the environment and tell whether it is there."""
    if UV.exists():
        say("2/3 uv is there")
        return True
    say("2/3 installing uv")
    if not (BIN / "pip").exists() and not set_up(PYTHON, "-m", "ensurepip"):
        return False
    return pip("install", "--quiet", UV_REQUIREMENT) and UV.exists()


def pip(*args: str | Path) -> bool:
    """Run the environment's own pip and tell whether it worked."""
    return set_up(PYTHON, "-m", "pip", "--disable-pip-version-check", *args)


def uv_pip_install(*args: str | Path) -> bool:
    """Run `uv pip install` and tell whether it worked; its progress bar is for terminals only."""
    calm = () if sys.stderr.isatty() else ("--quiet",)
    return set_up(UV, "pip", "install", "--python", PYTHON, "--compile-bytecode", *calm, *args)


def install_lock(*, with_uv: bool) -> None:
    """Install what the lock pins, every file checked against its hash."""
    pinned = ("--require-hashes", "--requirement", LOCK)
    say(f"3/3 installing what {shown(LOCK)} pins (some 300 MB) and the project")
    if with_uv and uv_pip_install(*pinned):
        return
    say("uv did not do it; using plain pip, which takes some minutes")
    if not pip("install", "--quiet", *pinned):
        stop(f"could not install {shown(LOCK)}: see above. Is the package index reachable?")


def install_project(*, with_uv: bool) -> None:
    """Install this checkout itself, editable."""
    # The build backend is pinned in the lock too, so that nothing comes in unchecked.
    project = ("--no-deps", "--no-build-isolation", "--editable", ROOT)
    if not (uv_pip_install(*project) if with_uv else pip("install", "--quiet", *project)):
        stop("the packages are installed, but not this project itself: see above")


def ensure_environment() -> None:
    """Make sure that the environment is what the lock says; costs nothing when it is."""
    if is_ready():
        return
    started = time.monotonic()
    with one_at_a_time():
        if is_ready():  # another terminal made it while this one waited
            return
        make_venv()
        STAMP.unlink(missing_ok=True)
        with_uv = install_uv()
        install_lock(with_uv=with_uv)
        install_project(with_uv=with_uv)
        STAMP.write_text(fingerprint(), "utf-8")
    say(f"ready after {time.monotonic() - started:.0f} s")


# ---- the commands -------------------------------------------------------------------------------


class Step(NamedTuple):
    """One program that has to succeed."""

    title: str
    args: tuple[str, ...]


LINT = (
    Step("ruff check", ("ruff", "check")),
    Step("ruff format --check", ("ruff", "format", "--check")),
)
TYPES = (Step("mypy", ("mypy",)),)
LAYERS = (Step("lint-imports", ("lint-imports", "--no-logo")),)
QUICK = ("-m", "not slow")
ALL_CORES = ("-n", "auto", "--dist", "loadfile")


def run_steps(steps: Sequence[Step]) -> int:
    """Run every step, even after a failure, and return the first bad exit code."""
    failed = 0
    for step in steps:
        say(f"--- {step.title}")
        code = call(BIN / step.args[0], *step.args[1:])
        if code:
            say(f"--- {step.title}: failed with exit code {code}")
        failed = failed or code
    return failed


def pytest_arguments(rest: Sequence[str]) -> list[str]:
    """Return pytest's arguments: the quick suite on all cores, or what was asked for.

    Slow tests are left out unless a marker (`-m`) or one test (`file::name`) is named.
    """
    if not rest:
        return [*QUICK, *ALL_CORES]
    named = any("::" in word or word[:2] == "-m" for word in rest)
    return list(rest) if named else [*QUICK, *rest]


def demo(rest: list[str]) -> NoReturn:
    """Run the demo: train, serve, halt the bad canary, promote the good student."""
    ensure_environment()
    become("abkit", "demo", *rest)


def dashboard(rest: list[str]) -> NoReturn:
    """Open the dashboard."""
    ensure_environment()
    become("abkit", "dashboard", *rest)


def test(rest: list[str]) -> NoReturn:
    """Run the quick tests and the examples in the docstrings; arguments go to pytest."""
    ensure_environment()
    become("pytest", *pytest_arguments(rest))


def slow(rest: list[str]) -> NoReturn:
    """Run the longer studies."""
    ensure_environment()
    become("pytest", "-m", "slow", *rest)


def calibration(rest: list[str]) -> NoReturn:
    """Measure false positives and power of every design in every cell, and keep the table."""
    ensure_environment()
    become("python", ROOT / "benchmarks" / "calibration.py", *rest)


def faults(rest: list[str]) -> NoReturn:
    """Run the fault suite and print what survived; `--long` adds the long forms."""
    ensure_environment()
    chosen = () if "--long" in rest else QUICK
    rest = [word for word in rest if word != "--long"]
    become("pytest", "tests/faults", *chosen, *ALL_CORES, *rest)


def check(rest: list[str]) -> int:
    """Run everything that has to hold: lint, types, layers, quick tests."""
    ensure_environment()
    tests = Step("pytest", ("pytest", *pytest_arguments(rest)))
    failed = run_steps([*LINT, *TYPES, *LAYERS, tests])
    say("--- check: something failed, see above" if failed else "--- check: all well")
    return failed


def lint(rest: list[str]) -> int:
    """Check style and formatting; arguments go to `ruff check`."""
    ensure_environment()
    return run_steps([Step(LINT[0].title, (*LINT[0].args, *rest)), *LINT[1:]])


def tidy(rest: list[str]) -> int:
    """Repair what ruff can repair and format everything."""
    ensure_environment()
    fix = Step("ruff check --fix", ("ruff", "check", "--fix", *rest))
    return run_steps([fix, Step("ruff format", ("ruff", "format", *rest))])


def types(rest: list[str]) -> NoReturn:
    """Check types, strictly."""
    ensure_environment()
    become("mypy", *rest)


def layers(rest: list[str]) -> NoReturn:
    """Check who imports whom."""
    ensure_environment()
    become("lint-imports", "--no-logo", *rest)


def screenshots(rest: list[str]) -> NoReturn:
    """Take the pictures of the dashboard anew."""
    ensure_environment()
    become("python", ROOT / "docs" / "screenshots.py", *rest)


def run(rest: list[str]) -> NoReturn:
    """Run anything inside the environment: `dev.py run python`."""
    if not rest:
        stop("run what? For example: python3 dev.py run python -c 'import abkit'", 2)
    ensure_environment()
    become(rest[0], *rest[1:])


def lock(rest: list[str]) -> int:
    """Write both lock files anew from pyproject.toml; `--upgrade` takes newer versions."""
    with one_at_a_time():
        make_venv()
        if not install_uv():
            stop("the lock file is made by uv, and uv could not be installed")
    say(f"3/3 resolving {shown(LOCK)} and {shown(CONFORMANCE_LOCK)}")
    resolve: tuple[str | Path, ...] = (
        *(UV, "pip", "compile", "pyproject.toml", "--universal", "--generate-hashes", "--quiet"),
        *("--python-version", "{}.{}".format(*OLDEST_PYTHON)),
        *("--custom-compile-command", "python3 dev.py lock", *rest),
    )
    return call(*resolve, "--extra", "dev", "--output-file", LOCK.name) or call(
        *(*resolve, "--extra", "dev", "--extra", "conformance", "--constraint", LOCK.name),
        *("--output-file", CONFORMANCE_LOCK.name),
    )


def conformance(rest: list[str]) -> int:
    """Add the vendors' packages, engines and servers that the conformance tests run against."""
    if rest:
        stop(f"conformance takes no arguments, and got {' '.join(rest)}", 2)
    ensure_environment()
    say(f"installing what {shown(CONFORMANCE_LOCK)} pins (about 1 GB)")
    pinned = ("--require-hashes", "--requirement", CONFORMANCE_LOCK)
    if not ((install_uv() and uv_pip_install(*pinned)) or pip("install", "--quiet", *pinned)):
        stop(f"could not install {shown(CONFORMANCE_LOCK)}: see above")
    return 0


def clean(rest: list[str]) -> int:
    """Remove the environment and every cache."""
    if rest:
        stop(f"clean takes no arguments, and got {' '.join(rest)}", 2)
    found = [ROOT / name for name in CACHES]
    found += [path for path in ROOT.rglob("__pycache__") if VENV not in path.parents]
    if (VENV / "pyvenv.cfg").is_file():
        found.append(VENV)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
            say(f"removed {shown(path)}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "test": test,
    "dashboard": dashboard,
    "check": check,
    "lint": lint,
    "tidy": tidy,
    "types": types,
    "layers": layers,
    "slow": slow,
    "calibration": calibration,
    "faults": faults,
    "screenshots": screenshots,
    "run": run,
    "lock": lock,
    "conformance": conformance,
    "clean": clean,
}


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    rows = [
        f"  {name:{width}}  {(command.__doc__ or '').splitlines()[0]}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(["usage: python3 dev.py COMMAND [ARGUMENTS...]", "", *rows])


def main(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if argv[:1] in (["-h"], ["--help"], ["help"]):
        print(usage())
        return 0
    if not argv or argv[0] not in COMMANDS:
        say(f"dev.py: {f'no command is named {argv[0]!r}' if argv else 'which command?'}")
        say(usage())
        return 2
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    if sys.version_info < OLDEST_PYTHON:
        stop(
            "needs Python {}.{} or newer, and this is {}.{} ({}). ".format(
                *OLDEST_PYTHON, *sys.version_info[:2], sys.executable
            )
            + "Where a newer one is installed, name it: `python3.12 dev.py ...`",
            2,
        )
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        stop("interrupted", 130)
