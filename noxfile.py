"""Everything that can be run on this project; ``nox`` alone runs what CI runs.

Each session installs what it needs into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"  # pip knows the machine's certificates and mirrors
nox.options.sessions = ["lint", "types", "tests", "postgresql16", "others"]

# The wheel of pyright carries its own JavaScript; with this set it fetches none.
PYRIGHT = {"PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT": "1", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


CONFORMANCE = ("tests/conformance", "tests/statements", "tests/originals")
"""What runs on other Pythons and other versions of the dependencies."""


BY_THEMSELVES = (
    "tests/concurrency",
    "tests/crash",
    "tests/packaging",
    "tests/postgresql/test_hammer.py",
)
"""What measures waits, kills processes, or installs: not beside other tests."""

BY_TWO = ("pytest", "-n", "2", "--dist", "worksteal")
"""A worker that has nothing left takes over from the other: some files take minutes."""

ON_SERVER = (*BY_TWO, "--layout=postgresql")
SERVED = (
    "--at-least=2100",
    *("tests/conformance", "tests/faults", "tests/property/test_histories.py"),
    *(
        f"tests/property/test_{name}.py"
        for name in (
            "sessions",
            "registry",
            "trigger_machine",
            "effect_machine",
            "bad_input",
            "stored_bytes",
            "kit",
        )
    ),
)
"""What runs on a server: the property machines with fewer examples, for each call is a round trip or two."""

OTHERS = "tests/others"
"""What needs packages of others, in an environment of its own."""


def _install(session: nox.Session, group: str) -> None:
    pyproject = nox.project.load_toml("pyproject.toml")
    session.install("-e", ".[cli,testing]", *nox.project.dependency_groups(pyproject, group))


def _install_from_debian(session: nox.Session, package: str, *, place: str = "") -> None:
    """Install what a session needs, unless there is its program, or what it puts in a `place`."""
    if os.path.exists(place) or shutil.which(package) is not None:
        return
    session.log(f"installs Debian's {package}, which is not here")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    session.run(*sudo, "apt-get", "update", "-q", external=True)
    session.run(
        *sudo, "apt-get", "install", "-y", "-q", "--no-install-recommends", package, external=True
    )


def _install_beside_a_server(session: nox.Session) -> None:
    """Install what the server's own tests put before it, and a locale that orders otherwise."""
    _install_from_debian(session, "pgbouncer")
    _install_from_debian(session, "locales", place="/usr/share/i18n/locales/en_US")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and who may import whom."""
    _install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check mypy --strict on everything, and pyright on what consumers see."""
    _install(session, "types")
    session.run("mypy")
    session.run("pyright", env=PYRIGHT)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, or what the arguments name: those that need the machine to themselves apart.

    Then those of the stores again, with one database in the place of each file, and on a server.
    """
    _install(session, "test")
    _install_beside_a_server(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    apart = (*BY_THEMSELVES, OTHERS)
    session.run(*BY_TWO, "tests", *(f"--ignore={folder}" for folder in apart))
    session.run("pytest", *BY_THEMSELVES)
    shared = ("--layout", "shared")
    session.run(*BY_TWO, *shared, "tests/conformance", "tests/property", "tests/faults")
    session.run("pytest", *shared, "tests/concurrency", "tests/crash")
    session.run(*ON_SERVER, *SERVED, env={"LASH_STORE_PROFILE": "server"})


@nox.session
def postgresql(session: nox.Session) -> None:
    """Run on PostgreSQL what the default sessions do there, or what the arguments name, by itself."""
    _install(session, "test")
    chosen = session.posargs or SERVED
    session.run(*ON_SERVER, *chosen, env={"LASH_STORE_PROFILE": "server"})


@nox.session
def postgresql16(session: nox.Session) -> None:
    """Run on the oldest PostgreSQL that there are promises for."""
    _install(session, "test")
    _install_beside_a_server(session)
    chosen = session.posargs or ["tests/postgresql"]
    session.run(*BY_TWO, *chosen, env={"PGSERVER_POSTGRES_VERSION": "16"})


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Run the conformance suite on every Python that is installed."""
    _install(session, "test")
    session.run("pytest", *CONFORMANCE, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the conformance suite on the lowest version of every dependency."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    lowest = [
        requirement.split(",")[0].replace(">=", "==")
        for requirement in [*project["dependencies"], *extras["cli"], *extras["testing"]]
    ]
    _install(session, "test")
    session.install(*lowest)
    session.run("python", "-m", "pip", "list")
    # What langgraph brings needs newer versions of what is lowered here, and hooks itself into pytest.
    session.run("pytest", "-p", "no:langsmith_plugin", *CONFORMANCE, *session.posargs)


@nox.session
def no_posix(session: nox.Session) -> None:
    """Run the suites without what POSIX has and Windows has not."""
    _install(session, "test")
    without = ("-p", "tests.support.no_posix", "-n", "2")
    session.run(
        "pytest", *without, *CONFORMANCE, "tests/property", "tests/shared", *session.posargs
    )


@nox.session
def others(session: nox.Session) -> None:
    """Point the machines at packages that nobody here wrote."""
    for program in ("redis-server", "gcc"):  # and what compiles the clock that it goes by
        _install_from_debian(session, program)
    pyproject = nox.project.load_toml("pyproject.toml")
    session.install("-e", ".[testing]", *nox.project.dependency_groups(pyproject, "others"))
    session.run("pytest", OTHERS, *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change one thing in leases, queue, turns, effects and the writer; a test has to notice."""
    _install(session, "test")
    session.install("cosmic-ray>=8.4")
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def histories(session: nox.Session) -> None:
    """Check what eight processes saw, killed and stopped, for ten minutes."""
    _install(session, "test")
    session.run(
        "pytest",
        "tests/property/test_histories.py",
        "-k",
        "eight_processes",
        "-o",
        "junit_family=xunit1",
        "--junit-xml=histories.xml",  # which says how many operations were checked
        *session.posargs,
        env={"LASH_STORE_HISTORY_S": "600"},
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read and write beside stored values that nobody wrote: many on SQLite, fewer on a server."""
    _install(session, "test")
    fuzzed = ("tests/property/test_stored_bytes.py", *session.posargs)
    session.run(
        *("pytest", "-n2", "--hypothesis-show-statistics"),
        *fuzzed,
        env={"LASH_STORE_PROFILE": "deep"},
    )
    session.run(*ON_SERVER, *fuzzed)


@nox.session
def property(session: nox.Session) -> None:  # noqa: A001 # reason: the session's name on the command line
    """Run the property tests again, deeper."""
    _install(session, "test")
    session.run(
        "pytest",
        "tests/property",
        "tests/conformance/test_session_queue.py",
        *session.posargs,
        env={"LASH_STORE_PROFILE": "deep"},
    )


@nox.session
def interrupts(session: nox.Session) -> None:
    """Interrupt each operation ten thousand times."""
    _install(session, "test")
    session.run(
        "pytest",
        "tests/crash/test_interrupts.py",
        *session.posargs,
        env={"LASH_STORE_INTERRUPTS": "10000"},
    )


@nox.session
def many(session: nox.Session) -> None:
    """Run with many sessions, forks and seconds what the default run has fewer of."""
    _install(session, "test")
    _install_beside_a_server(session)
    session.run(
        "pytest",
        "tests/concurrency/test_bounds.py",
        "tests/concurrency/test_forks.py",
        "tests/postgresql/test_hammer.py",
        *session.posargs,
        env={
            "LASH_STORE_SESSIONS": "1000",
            "LASH_STORE_FORKS": "500",
            "LASH_STORE_HAMMER_S": "60",
        },
    )


@nox.session
def schema(session: nox.Session) -> None:
    """Render schema/*.sql from the MetaData."""
    _install(session, "test")
    session.run("python", "-m", "tests.support.render_schema")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and write the figures to bench/results/."""
    _install(session, "test")
    Path("bench/results").mkdir(exist_ok=True)
    for name in (
        "hot_paths",
        "fairness",
        "growth",
        "guard",
        "registry",
        "effects",
        "together",
        "crowd",
        "imports",
        "load",
    ):
        session.run("python", "-m", f"bench.{name}", "--json", f"bench/results/{name}.json")


@nox.session(python="3.12")
def peers(session: nox.Session) -> None:
    """Measure the same work beside other packages, and draw the plots of the README."""
    _install(session, "peers")
    target = "bench/results/peers.json"
    session.run("python", "-m", "bench.peers", "--json", target, *session.posargs)
    session.run("python", "-m", "bench.peers.plots", target, "docs/plots")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and the sdist into dist/."""
    session.install("build")
    session.run("python", "-m", "build", *session.posargs)
    session.log(f"built {sorted(os.listdir('dist'))}")
