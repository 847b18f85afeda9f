"""Wrong inputs get a sentence: what was given, what to do, and never a stack trace.

Each case is tried through the program, and where a function takes the input, through the library.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import landscope as ls
from landscope import errors
from landscope.formats import checkpoint, reference_h5

Command = Callable[..., Any]  # words -> code, out, err
REFERENCE = Path(__file__).parent / "data" / "reference" / "tiny_a"
DIRECTION = next(REFERENCE.glob("*weights*xnorm=filter.h5"))

FAULTY = """

from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        inputs, targets = data()
        return inputs[index] + torch.randn(4), targets[index]


def number():
    return 42


def wide():
    return ls.Objective(model(), nn.CrossEntropyLoss(), (torch.randn(5, 9), torch.zeros(5).long()))


def rows():
    return ls.Objective(model(), nn.CrossEntropyLoss(), (torch.randn(5, 4), torch.zeros(6).long()))


def empty():
    return ls.Objective(model(), nn.CrossEntropyLoss(), (torch.randn(0, 4), torch.zeros(0).long()))


def text():
    return ls.Objective(model(), lambda outputs, targets: "low", data())


def no_loss():
    return ls.Objective(model(), "cross_entropy", data())


def no_model():
    return ls.Objective("resnet", nn.CrossEntropyLoss(), data())


def once():
    return ls.Objective(model(), nn.CrossEntropyLoss(), (batch for batch in [data()]))


def noisy():
    return ls.Objective(model(), nn.CrossEntropyLoss(), DataLoader(Noisy(), batch_size=10),
                        cache=False)


def dropout():
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    return ls.Objective(net, nn.CrossEntropyLoss(), data())


def frozen():
    return ls.Objective(model().requires_grad_(False), nn.CrossEntropyLoss(), data())


def half():
    return ls.Objective(model(), nn.CrossEntropyLoss(), data(), precision="int3")


def needs(width):
    return make(width)
"""
SMALL = ("--x=-1:1:3", "--y=-1:1:3")


@pytest.fixture
def faulty(target: str, tmp_path: Path) -> Callable[[str], str]:
    """``faulty("empty")``: a target of that name."""
    path = tmp_path / "faulty.py"
    path.write_text(Path(target.rpartition(":")[0]).read_text() + FAULTY)
    return lambda name: f"{path}:{name}"


def _sentence(answer: Any, *words: str) -> None:
    """The command failed with one line that holds the words."""
    assert answer.code == 1, answer
    assert "Traceback" not in answer.err + answer.out
    assert "LANDSCOPE_TRACEBACK" not in answer.err, answer.err
    lines = [line for line in answer.err.splitlines() if "landscope: " in line]
    sentence = answer.err[answer.err.index("landscope: ") :].strip()
    assert len(lines) == 1, answer.err
    assert sentence.count("\n") == 0, sentence
    assert sentence.startswith("landscope: ")
    assert sentence[-1] in ".)", sentence
    for word in words:
        assert word in sentence, (word, sentence)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("number", ("returned a int", "expected an ls.Objective")),
        ("nothing", ("no function 'nothing'", "it has", "make")),
        ("wide", ("9",)),
        ("rows", ("(5, 4)", "(6,)", "same number of rows")),
        ("empty", ("empty",)),
        ("text", ("str", "expected")),
        ("no_loss", ("'cross_entropy'", "expected")),
        ("no_model", ("model is a str", "expected a torch.nn.Module")),
        ("once", ("iterator", "only once", "list(data)")),
        ("noisy", ("at the center was", "streamed data", "cache=True")),
        ("dropout", ("dropout in training mode (1)", "model.eval()")),
        ("frozen", ("trainable",)),
        ("half", ("precision='int3'", "float32")),
        ("needs", ("width", "--set")),
    ],
)
def test_a_target_with_a_fault_gets_a_sentence(
    command: Command, faulty: Callable[[str], str], tmp_path: Path, name: str, words: tuple[str]
) -> None:
    answer = command("scan", faulty(name), *SMALL, "--out", tmp_path / "run")
    _sentence(answer, *words)
    assert not (tmp_path / "run" / "landscape.nc").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("gone.py:make", ("gone.py does not exist", "expected file.py:function")),
        ("gone_package.part:make", ("'gone_package.part' cannot be imported", "No module named")),
        ("target.py", ("TARGET='target.py'", "expected file.py:function")),
        (":make", ("TARGET=':make'", "zoo:NAME")),
        ("zoo:resnet57", ("zoo:resnet57 is not in the zoo", "`landscope zoo`")),
        ("zoo:resnet56", ("needs CIFAR-10", "--set data=")),
    ],
)
def test_a_target_that_is_not_there_is_named(
    command: Command, tmp_path: Path, target: str, words: tuple[str, ...]
) -> None:
    _sentence(command("scan", target, *SMALL, "--out", tmp_path / "run"), *words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def make(:", ("cannot be imported", "SyntaxError")),
        ("import no_such_library", ("cannot be imported", "no_such_library")),
        ("raise ValueError('no data\\nat all')", ("cannot be imported", "ValueError: no data")),
        ("import sys; sys.exit('stop')", ("cannot be imported", "SystemExit: stop")),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(
    command: Command, tmp_path: Path, code: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "broken_target.py").write_text(code)
    answer = command("scan", f"{tmp_path / 'broken_target.py'}:make", "--out", tmp_path / "run")
    _sentence(answer, *words)


def test_a_cifar_network_without_weights_asks_for_them(command: Command, tmp_path: Path) -> None:
    words = ("--set", f"data={tmp_path}", "--out", tmp_path / "run")
    _sentence(command("scan", "zoo:resnet56", *words), "trained weights", "--checkpoint")


def test_cifar_data_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    torch.save(ls.zoo.CATALOG["resnet20"].build().state_dict(), tmp_path / "w.pt")
    words = ("--set", f"data={tmp_path / 'gone.tar.gz'}", "--checkpoint", tmp_path / "w.pt")
    _sentence(command("scan", "zoo:resnet20", *words, "--out", tmp_path / "run"), "gone.tar.gz")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("width", ("--set 'width'", "expected name=value")),
        ("depth=3", ("--set depth=...", "no such argument", "width, seed")),
        ("1x=3", ("--set '1x=3'", "expected name=value")),
    ],
)
def test_a_setting_that_does_not_fit_is_named(
    command: Command, target: str, tmp_path: Path, setting: str, words: tuple[str, ...]
) -> None:
    answer = command("scan", target, "--set", setting, "--out", tmp_path / "run")
    _sentence(answer, *words)


def test_a_setting_of_the_zoo_that_does_not_fit_is_named(command: Command, tmp_path: Path) -> None:
    words = ("--set", "loss=hinge", "--out", tmp_path / "run")
    _sentence(command("scan", "zoo:digits_mlp", *words), "loss='hinge'", "cross_entropy, mse")


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (("--x=1:-1:5",), ("runs from 1 to -1", "swap them")),
        (("--x=-1:1",), ("'-1:1'", "first:last:points")),
        (("--x=a:b:c",), ("'a:b:c'", "-1:1:51")),
        (("--x=-1:1:2.5",), ("'-1:1:2.5'", "first:last:points")),
        (("--x=-1:1:0",), ("0",)),
        (("--x=nan:1:5",), ("nan",)),
        (("--y=-1:1:5",), ("--y is given without --x",)),
        (("--x=-1:1:5", "--z=-1:1:5"), ("--z is given without --y",)),
    ],
)
def test_axes_that_make_no_grid_are_named(
    command: Command, target: str, tmp_path: Path, axes: tuple[str], words: tuple[str]
) -> None:
    _sentence(command("scan", target, *axes, "--out", tmp_path / "run"), *words)


def _other_shapes(path: Path) -> None:
    torch.save({"0.weight": torch.ones(3, 3)}, path)


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Path("x")}))


def _saved_model(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a checkpoint at all")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, ("does not exist",)),
        (Path.mkdir, ("is a folder",)),
        (_other_shapes, ("0.weight has the shape (3, 3)", "(6, 4) in the model")),
        (_pickled, ("unpickl", "model.state_dict()")),
        (_saved_model, ("unpickl", "model.state_dict()")),
        (_garbage, ("not a checkpoint that torch can read", "model.state_dict()")),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    command: Command, target: str, tmp_path: Path, write: Callable[[Path], None], words: tuple[str]
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    answer = command("scan", target, *SMALL, "--checkpoint", path, "--out", tmp_path / "run")
    _sentence(answer, str(path), *words)
    with pytest.raises(errors.FormatError, match=r"weights\.pt"):
        checkpoint.load(nn.Linear(4, 6), path)


def test_toward_a_checkpoint_of_another_network_is_refused(
    command: Command, target: str, tmp_path: Path
) -> None:
    for name, state in (("names", {"fc": torch.ones(2)}), ("shapes", None)):
        path = tmp_path / f"{name}.pt"
        torch.save(state or {n: torch.ones(2) for n in _names()}, path)
        words = ("--toward", path, "--out", tmp_path / "run")
        _sentence(command("scan", target, "--x=0:1:3", *words), "0.weight", f"{name}.pt")


def _names() -> list[str]:
    return ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
            "3.weight", "3.bias"]  # fmt: skip


def test_more_directions_than_axes_are_refused(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "plane"
    assert command("scan", target, *SMALL, "--out", run).code == 0
    answer = command("scan", target, "--x=0:1:3", "--directions", run, "--out", tmp_path / "line")
    _sentence(answer, "2 directions are given for 1 axes", "--y")


def test_directions_that_do_not_fit_are_refused(
    command: Command, target: str, tmp_path: Path
) -> None:
    end = ("--out", tmp_path / "run")
    _sentence(command("scan", target, "--directions", DIRECTION, *end), DIRECTION.name, "0.weight")
    gone = tmp_path / "gone.h5"
    _sentence(command("scan", target, "--directions", gone, *end), "gone.h5 does not exist")
    (tmp_path / "bare").mkdir()
    answer = command("scan", target, "--directions", tmp_path / "bare", *end)
    _sentence(answer, "is not the folder of a run")
    run = tmp_path / "plane"
    assert command("scan", target, *SMALL, "--out", run).code == 0
    wide = ("--set", "width=7")
    _sentence(command("scan", target, "--directions", run, *wide, *end), "0.weight")
    answer = command("scan", target, "--directions", run, "--over", "states", *end)
    _sentence(answer, "1.running_mean", "--over")


def test_an_unknown_word_of_an_option_lists_the_words(
    command: Command, target: str, tmp_path: Path
) -> None:
    for option, words in (
        ("--normalize", "filter layer weight dfilter dlayer none"),
        ("--ignore", "biasbn none"),
        ("--over", "parameters states"),
    ):
        answer = command("scan", target, option, "magic", "--out", tmp_path / "run")
        assert answer.code == 2
        assert "Traceback" not in answer.err
        assert all(word in answer.err for word in ("magic", *words.split()))
    params = {"w": torch.ones(2, 2)}
    with pytest.raises(errors.DirectionError, match=r"normalize='magic'.*filter"):
        ls.directions.random(params, normalize="magic")  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(
    command: Command, target: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    _sentence(command("scan", target, *SMALL, "--out", out), str(out), "choose another --out")
    surface = next(REFERENCE.glob("*7]x*.h5"))
    _sentence(command("import", surface, out), str(out), "cannot be written")
    for ending in ("nc", "csv", "h5", "vtp", "vts", "zarr"):
        place = tmp_path / "file" / f"land.{ending}"
        _sentence(command("export", surface, place), str(place), "cannot be written")
    for words in (("plot", surface, "--out", out), ("page", surface, "--out", f"{out}.html")):
        _sentence(command(*words), "cannot be written")


def test_a_journal_of_another_question_is_never_mixed_in(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("scan", target, *SMALL, "--out", tmp_path / "run")
    assert command(*words).code == 0
    _sentence(
        command(*words, "--seed", 1), "another scan", "--seed was not given, now 1", "another --out"
    )
    answer = command("scan", target, "--x=-1:1:5", "--y=-1:1:3", "--out", tmp_path / "run")
    _sentence(answer, "--x was -1:1:3, now -1:1:5", "Nothing was written to it")


def test_a_file_that_is_no_journal_is_left_alone(
    command: Command, target: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "journal.sqlite"
    path.write_bytes(b"my diary" * 200)
    _sentence(command("scan", target, *SMALL, "--out", path.parent), "journal.sqlite")
    assert path.read_bytes() == b"my diary" * 200


@pytest.mark.parametrize("name", ["page", "plot", "info"])
def test_a_run_that_is_not_there_is_named(command: Command, tmp_path: Path, name: str) -> None:
    _sentence(command(name, tmp_path / "gone"), str(tmp_path / "gone"))
    (tmp_path / "bare").mkdir()
    _sentence(command(name, tmp_path / "bare"), "is not the folder of a run", "landscape.nc")
    _sentence(command(name, tmp_path / "gone.nc"), "gone.nc does not exist")


def test_an_export_with_an_unknown_ending_lists_the_endings(
    command: Command, tmp_path: Path
) -> None:
    surface = next(REFERENCE.glob("*7]x*.h5"))
    _sentence(
        command("export", surface, tmp_path / "a.xlsx"), "'.xlsx'", ".nc .zarr", ".vtp .vts", ".csv"
    )
    assert not (tmp_path / "a.xlsx").exists()


@pytest.mark.parametrize("name", ["plot", "page", "export"])
def test_an_unknown_quantity_lists_the_quantities(
    command: Command, tmp_path: Path, name: str
) -> None:
    surface = next(REFERENCE.glob("*7]x*.h5"))
    words = {"plot": ("--out", tmp_path), "page": ("--out", tmp_path / "p.html")}.get(
        name, (tmp_path / "a.vtp",)
    )
    answer = command(name, surface, *words, "--quantity", "beauty")
    _sentence(answer, "'beauty'", "loss", "accuracy")


def test_a_2018_file_that_is_not_a_surface_is_named(command: Command, tmp_path: Path) -> None:
    _sentence(command("import", DIRECTION, tmp_path / "run"), "not a surface", "read_directions")
    assert not (tmp_path / "run").exists()
    with pytest.raises(errors.FormatError, match="not a surface"):
        reference_h5.read_surface(DIRECTION)


def test_a_damaged_run_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "landscape.nc").write_bytes(b"half a file")
    _sentence(command("info", tmp_path / "run"), "landscape.nc cannot be read as a landscape")


def test_a_damaged_note_is_named(command: Command, tmp_path: Path) -> None:
    surface = next(REFERENCE.glob("*7]x*.h5"))
    assert command("import", surface, tmp_path / "run").code == 0
    (tmp_path / "run" / "run.json").write_text("{half")
    _sentence(command("info", tmp_path / "run"), "run.json")


# --- through the library ------------------------------------------------------------------------


class _Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(4), torch.tensor(index % 3)


def _scan(model: Any, loss: Any, data: Any, **options: Any) -> ls.Landscape:
    objective = ls.Objective(model, loss, data, **options)
    (d,) = ls.directions.random(objective.center, 1)
    return ls.scan(objective, ls.Line(objective.center, d), ls.Grid(3))


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.randn(4, 4), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (_batches(), {}, errors.ObjectiveError),
        ([], {}, errors.ObjectiveError),
        (np.ones((3, 4)), {}, errors.ObjectiveError),
        ("data.csv", {}, errors.ObjectiveError),
        ((torch.ones(3, 4), torch.zeros(2).long()), {}, errors.ObjectiveError),
        ((torch.ones(3, 5), torch.zeros(3).long()), {}, errors.ObjectiveError),
        (DataLoader(_Noisy(), batch_size=4), {"cache": False}, errors.DeterminismError),
    ],
)
def test_data_that_cannot_be_used_is_an_error_of_landscope(
    data: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        _scan(nn.Linear(4, 3), nn.CrossEntropyLoss(), data, **options)
    assert "data" in str(caught.value)


@pytest.mark.parametrize("span", [(1, -1), (0, 0), (0, float("inf")), (float("nan"), 1), 3, "ab"])
def test_a_span_that_is_no_range_is_an_error_of_landscope(span: Any) -> None:
    with pytest.raises(errors.SamplerError):
        ls.Grid(5, span)


def test_the_sentences_hold_no_line_breaks_when_torch_has_much_to_say() -> None:
    with pytest.raises(errors.ObjectiveError) as caught:
        _scan(nn.Conv2d(3, 4, 3), nn.CrossEntropyLoss(), (torch.ones(2, 5), torch.zeros(2).long()))
    assert "\n" not in str(caught.value)
    assert json.dumps(str(caught.value))
