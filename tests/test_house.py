"""Rules of the house that no linter holds: imports, errors, and what is in the wheel."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from optimizer.errors import OptimizerError
from search_spaces.errors import SpaceError
from trials.errors import TrialError, WorkerBugError

ROOT = Path(__file__).parents[1]
PACKAGES = ("optimizer", "search_spaces", "trials")
BASES = {"optimizer": OptimizerError, "search_spaces": SpaceError, "trials": TrialError}
# a bug that is passed on from the worker: whoever catches our errors must not catch it
NO_ERROR_OF_OURS = {WorkerBugError}
HEAVY = ("matplotlib", "mlflow", "numpy", "onnx", "onnxruntime", "optuna", "pydantic", "torch")


def names_of_modules() -> list[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    return sorted(".".join(part for part in each if part != "__init__") for each in parts)


def exceptions_of(module: ModuleType) -> Iterator[type[Exception]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Exception) and found.__module__ == module.__name__:
            yield found


def test_every_exception_descends_from_its_packages_base() -> None:
    strays = [
        found
        for name in names_of_modules()
        for found in exceptions_of(importlib.import_module(name))
        if found not in NO_ERROR_OF_OURS and not issubclass(found, BASES[name.partition(".")[0]])
    ]

    assert strays == []


@pytest.mark.parametrize("package", PACKAGES)
def test_tree_of_errors_in_the_docstring_names_them_all(package: str) -> None:
    module = importlib.import_module(f"{package}.errors")
    named = (module.__doc__ or "") if package != "search_spaces" else "SpaceError"

    assert [found for found in exceptions_of(module) if found.__name__ not in named] == []


def test_nobody_else_owns_our_import_names() -> None:
    owners = packages_distributions()

    assert {package: set(owners.get(package, ["trifront"])) for package in PACKAGES} == {
        package: {"trifront"} for package in PACKAGES
    }


@pytest.mark.parametrize("name", names_of_modules())
def test_module_says_what_it_is(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), name


def run(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["search", "--help"], ["replay", "--help"], ["store", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom optimizer.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sorted({name.partition('.')[0] "
        "for name in sys.modules}), file=sys.stderr)"
    )

    ran = run(program, *arguments)

    assert "Usage" in ran.stdout + ran.stderr
    imported = set(HEAVY) & set(ran.stderr.splitlines()[-1].split())
    # Typer itself imports pydantic as soon as a sub-command is parsed
    assert imported <= ({"pydantic"} if len(arguments) > 1 else set())


EFFECTS = """
import importlib, logging, os, signal, sys, threading, warnings
import matplotlib, mlflow, numpy, onnx, onnxruntime, optuna, scipy.stats, typer  # have their own
def state():
    handlers = [(logger.name, len(logger.handlers), logger.level) for logger in
                [logging.root, *(logging.getLogger(name) for name in
                 ("optimizer", "search_spaces", "trials", "optuna", "mlflow"))]]
    signals = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    return (handlers, signals, dict(os.environ), list(warnings.filters), threading.active_count(),
            os.getcwd(), sorted(os.listdir()), optuna.logging.get_verbosity())
before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
for earlier, later in zip(before, state(), strict=True):
    assert earlier == later, (earlier, later)
"""


def test_importing_us_has_no_effects(tmp_path: Path) -> None:
    """No handler, level, signal, environment variable, filter, thread or file is touched."""
    ran = run(EFFECTS, *names_of_modules(), cwd=tmp_path)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as pip would."""
    pytest.importorskip("hatchling", reason="needs the dependency group `test`")
    folder = tmp_path_factory.mktemp("wheel")
    program = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    ran = run(program, str(folder))
    assert ran.returncode == 0, ran.stderr
    return folder / ran.stdout.split()[-1]


@pytest.fixture(scope="module")
def in_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_our_packages_and_nothing_else(in_wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in in_wheel}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for name in names_of_modules():
        assert any(one in in_wheel for one in (f"{name.replace('.', '/')}.py",)) or (
            f"{name.replace('.', '/')}/__init__.py" in in_wheel
        )


def test_wheel_ships_types_spaces_models_data_and_licences(in_wheel: list[str]) -> None:
    shipped = ROOT / "search_spaces" / "shipped"
    files = {str(path.relative_to(ROOT)) for path in shipped.rglob("*") if path.is_file()}

    assert {f"{package}/py.typed" for package in PACKAGES} <= set(in_wheel)
    assert files <= set(in_wheel)
    assert {Path(one).suffix for one in files} >= {".yaml", ".onnx", ".npz"}
    assert any(name.endswith("licenses/LICENSE") for name in in_wheel)


def test_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """As pip would unpack it, with the libraries of this environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    program = "import optimizer.cli as c, sys; sys.stderr.write(c.__file__ + '\\n'); c.main()"

    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, "check", "fashion-mnist"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[0].startswith(str(tmp_path / "site"))
    assert "deployments: " in ran.stdout
