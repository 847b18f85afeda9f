"""Targets of the command line: what a TARGET names, and what is said when it is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import landscope as ls
from landscope.cli import targets
from landscope.errors import TargetError
from tests import toy_target

TOY = Path(__file__).parents[1] / "toy_target.py"
NUMBER = iter(range(1000))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget modules and paths that a target brought in."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The toy target under a name that no other test has imported."""
    path = tmp_path / f"toy_{next(NUMBER)}.py"
    path.write_text(TOY.read_text())
    return path


def test_a_function_of_a_file_is_called(file: Path) -> None:
    objective = targets.load_objective(f"{file}:make")
    assert isinstance(objective, ls.Objective)
    assert objective.loss() == pytest.approx(_toy_loss())


def test_a_function_of_a_module_is_called(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert targets.load_objective(f"{file.stem}:make").loss() == pytest.approx(_toy_loss())


def test_classes_of_a_file_find_their_module(tmp_path: Path) -> None:
    path = tmp_path / f"own_{next(NUMBER)}.py"
    path.write_text(
        "from dataclasses import dataclass\nimport torch\nimport landscope as ls\n"
        "@dataclass\nclass Width:\n    value: int = 3\n"
        "def make():\n"
        "    data = torch.ones(4, 2), torch.zeros(4, Width().value)\n"
        "    return ls.Objective(torch.nn.Linear(2, Width().value), torch.nn.MSELoss(), data)\n"
    )
    assert targets.load_objective(f"{path}:make").terms().shape == (4,)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=3", 3),
        ("x=0.5", 0.5),
        ("x=True", True),
        ("x=None", None),
        ("x=(1, 2)", (1, 2)),
        ("x='a'", "a"),
        ("x=plain", "plain"),
        ("x=a=b", "a=b"),
        ("x=", ""),
    ],
)
def test_arguments_are_literals_or_text(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / f"keeps_{next(NUMBER)}.py"
    path.write_text("KEPT = []\ndef make(x):\n    KEPT.append(x)\n")
    with pytest.raises(TargetError, match=r"returned a NoneType; expected an ls\.Objective"):
        targets.load_objective(f"{path}:make", arguments=[text])
    assert [value] == sys.modules[path.stem].KEPT


def test_any_keyword_is_passed_to_a_function_that_takes_any(tmp_path: Path) -> None:
    path = tmp_path / f"any_{next(NUMBER)}.py"
    path.write_text(
        "import torch, landscope as ls\n"
        "def make(**names):\n"
        "    data = torch.ones(names['rows'], 2), torch.zeros(names['rows'], 1)\n"
        "    return ls.Objective(torch.nn.Linear(2, 1), torch.nn.MSELoss(), data)\n"
    )
    assert targets.load_objective(f"{path}:make", arguments=["rows=5"]).terms().shape == (5,)


def test_a_checkpoint_moves_the_center(file: Path, tmp_path: Path) -> None:
    other = targets.load_objective(f"{file}:make", arguments=["seed=3"])
    torch.save(other.model.state_dict(), tmp_path / "other.pt")
    loaded = targets.load_objective(f"{file}:make", checkpoint=tmp_path / "other.pt")
    for name, tensor in other.center.items():
        assert torch.equal(loaded.center[name], tensor)
    assert loaded.loss() == pytest.approx(other.loss())


def test_a_zoo_network_takes_arguments() -> None:
    objective = targets.load_objective(
        "zoo:digits_mlp", arguments=["epochs=1", "seed=5", "test=True"]
    )
    assert set(objective.problem.batches) == {"train_", "test_"}


@pytest.mark.parametrize(
    ("target", "arguments", "text"),
    [
        ("file.py", [], r"TARGET='file\.py'; expected file\.py:function"),
        (":make", [], "expected file"),
        ("file.py:", [], "expected file"),
        ("nowhere.py:make", [], r"nowhere\.py does not exist"),
        ("no.such.module:make", [], r"module 'no\.such\.module' cannot be imported"),
        ("TOY:nothing", [], "has no function 'nothing': it has model, data, make"),
        ("TOY:CALLS", [], "has no function 'CALLS'"),
        ("TOY:make", ["height=3"], "--set height=.*: .* no such argument; it takes width, seed"),
        ("TOY:make", ["width"], r"--set 'width'; expected name=value"),
        ("TOY:make", ["2x=3"], r"expected name=value"),
        ("zoo:digits_mlp", ["hidden=3"], "has no such argument"),
        ("zoo:nothing", [], "zoo:nothing is not in the zoo"),
    ],
)
def test_what_is_not_there_is_said(
    file: Path, target: str, arguments: list[str], text: str
) -> None:
    with pytest.raises(TargetError, match=text):
        targets.load_objective(target.replace("TOY", str(file)), arguments=arguments)


def test_an_argument_that_is_lacking_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"needs_{next(NUMBER)}.py"
    path.write_text("def make(width, *more, **names):\n    pass\n")
    with pytest.raises(TargetError, match=r"needs the argument 'width': pass --set width=VALUE"):
        targets.load_objective(f"{path}:make")


@pytest.mark.parametrize("fault", ["raise ValueError('half')", "import sys; sys.exit(3)", "def ("])
def test_a_file_that_fails_is_named_and_forgotten(tmp_path: Path, fault: str) -> None:
    path = tmp_path / f"broken_{next(NUMBER)}.py"
    path.write_text(fault)
    with pytest.raises(TargetError, match=rf"{path.name} cannot be imported: \w+"):
        targets.load_objective(f"{path}:make")
    assert path.stem not in sys.modules


def _toy_loss() -> float:
    inputs, truth = toy_target.data()
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(toy_target.model()(inputs), truth))
