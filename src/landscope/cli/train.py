"""The command that trains a network and records the path that it takes.

Torch is imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscope.cli import report
from landscope.cli.options import Arguments, Checkpoint, Target
from landscope.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from landscope.objective.objective import Objective
    from landscope.training.loop import Trained
    from landscope.training.optimizers import Course

_EPOCHS_2018 = 300  # of the CIFAR-10 networks
_ROWS = 8  # epochs in the table at the end


Optimizer = Literal["sgd", "adam", "adamw", "sam"]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate at the start; 0.1, or 0.001 for adam and adamw, if not given."
    ),
]
Decay = Annotated[
    float | None, typer.Option(help="Weight decay; 5e-4, or 0.01 for adamw, if not given.")
]
Epochs = Annotated[
    int | None, typer.Option(help="Number of epochs; 30, or 300 on CIFAR-10, if not given.")
]
Drops = Annotated[
    str | None,
    typer.Option(
        help="Epochs after which the learning rate falls, such as 15,22, or none; at 50%, 75% and"
        " 92% of the epochs if not given."
    ),
]
Record = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints; training resumes there.")
]
Every = Annotated[
    str, typer.Option(help="Interval between checkpoints: epoch, or a number of steps.")
]
Keep = Annotated[
    int | None,
    typer.Option(help="Largest number of checkpoints to keep (such as 200); all if not given."),
]


def train(
    target: Target,
    *,
    record: Record = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the trained weights: .safetensors.")
    ] = None,
    optimizer: Annotated[
        Optimizer | None,
        typer.Option(
            help="Optimizer; sam is sharpness-aware, with two gradients per step; sgd, or adamw for"
            " text, if not given."
        ),
    ] = None,
    learning_rate: Rate = None,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd and sam.")] = 0.9,
    nesterov: Annotated[bool, typer.Option(help="Use Nesterov momentum.")] = True,
    weight_decay: Decay = None,
    rho: Annotated[float, typer.Option(help="Radius of the neighborhood of sam.")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Number of samples per step.")] = 128,
    epochs: Epochs = None,
    drops: Drops = None,
    factor: Annotated[float, typer.Option(help="Factor by which the learning rate falls.")] = 0.1,
    warmup: Annotated[
        int, typer.Option(help="Number of epochs in which the learning rate rises from 0.")
    ] = 0,
    label_noise: Annotated[
        float, typer.Option(help="Share of the training labels that are replaced by random ones.")
    ] = 0.0,
    augment: Annotated[
        bool | None,
        typer.Option(help="Shift and mirror the images; done for CIFAR-10 if not given."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the weights, the order of the data and the label noise.")
    ] = 0,
    every: Every = "epoch",
    keep: Keep = None,
    checkpoint: Checkpoint = None,
    set_: Arguments = None,
) -> None:
    """Train a network and record the path that it takes, like the 2018 training script.

    A network of the zoo starts from random weights (or --checkpoint); your own target starts from
    the weights that its function returns. After Ctrl-C or a crash, the same command continues after
    the last complete epoch.
    """
    from landscope.progress import show_bar
    from landscope.training import augmentation, loop
    from landscope.training.optimizers import Course

    _check_outputs(record, out)
    options = _drop_none(
        learning_rate=learning_rate, weight_decay=weight_decay, drops=_parse_drops(drops),
        epochs=_choose_epochs(target, epochs),
    )  # fmt: skip
    course = Course(
        _choose_optimizer(target, optimizer), momentum=momentum, nesterov=nesterov, rho=rho,
        batch_size=batch_size, factor=factor, warmup=warmup, seed=seed, **options,
    )  # fmt: skip
    arguments = _parse_arguments(target, set_ or (), seed)
    objective = _load_objective(target, arguments, checkpoint, seed)
    objective = augmentation.corrupt_labels(objective, label_noise, seed=seed)
    request = {
        "command": "train", "target": target, "set": arguments, "label_noise": label_noise,
        "checkpoint": checkpoint,
    }  # fmt: skip
    resumable = contextlib.nullcontext() if record is None else report.exit_on_interrupt(record)
    with resumable, show_bar(f"train {target}", "steps", values=True) as progress:
        trained = loop.train(
            objective, course, record=record, every=_parse_every(every), keep=keep, asked=request,
            augment=_choose_augmentation(target, arguments, augment), progress=progress,
        )  # fmt: skip
    _print_history(target, course, trained)
    if out is not None:
        _write_weights(trained, out)
    _print_next_command(target, arguments, record, out)


def _drop_none(**values: Any) -> dict[str, Any]:
    """Return the values that are given; the others have their defaults elsewhere."""
    return {name: value for name, value in values.items() if value is not None}


def _check_outputs(record: Path | None, out: Path | None) -> None:
    if record is None and out is None:
        raise TrainingError(
            "nothing would be saved: add --record FOLDER for the path, or --out FILE.safetensors"
            " for the trained weights alone."
        )
    if out is not None and out.suffix != ".safetensors":
        raise TrainingError(f"--out {out}; expected a file that ends in .safetensors.")
    if out is not None and not out.parent.is_dir():
        raise TrainingError(
            f"--out {out}: the folder {out.parent} does not exist: create it first."
        )


def _parse_drops(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(map(int, text.split(","))) if text != "none" else ()
    except ValueError:
        raise TrainingError(f"--drops {text}; expected epochs such as 15,22,27, or none.") from None


def _parse_every(text: str) -> Literal["epoch"] | int:
    if text == "epoch":
        return "epoch"
    try:
        return int(text)
    except ValueError:
        raise TrainingError(f"--every {text}; expected epoch, or a number of steps.") from None


def _zoo_name(target: str) -> str:
    """Return NAME of zoo:NAME; an empty text for another target."""
    place, _, name = target.rpartition(":")
    return name if place == "zoo" else ""


def _choose_optimizer(target: str, chosen: Optimizer | None) -> str:
    from landscope.zoo import text_networks

    if chosen is not None:
        return chosen
    return "adamw" if _zoo_name(target) in text_networks.NETWORKS else "sgd"


def _choose_epochs(target: str, chosen: int | None) -> int | None:
    from landscope.zoo import cifar_networks

    is_cifar = _zoo_name(target) in cifar_networks.NETWORKS
    return _EPOCHS_2018 if chosen is None and is_cifar else chosen


def _parse_arguments(target: str, texts: Sequence[str], seed: int) -> dict[str, str]:
    """Return the target's arguments by name; networks of the zoo split data by the same seed."""
    arguments = {name: value for name, _, value in (text.partition("=") for text in texts)}
    return {"seed": str(seed), **arguments} if _zoo_name(target) else arguments


def _load_objective(
    target: str, arguments: Mapping[str, str], checkpoint: Path | None, seed: int
) -> Objective:
    """Return the objective to train; that of the zoo has all training data, and test data."""
    from landscope import zoo
    from landscope.cli import targets
    from landscope.objective.objective import Objective
    from landscope.zoo import text_networks

    name = _zoo_name(target)
    if name not in zoo.CATALOG:
        return targets.load_objective(target, arguments=_format(arguments), checkpoint=checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        start = checkpoint or _write_random_weights(name, seed, Path(folder) / "start.safetensors")
        texts = _format({"test": "True", **arguments})
        objective = targets.load_objective(target, arguments=texts, checkpoint=start)
    if name not in text_networks.NETWORKS:
        return objective
    problem = objective.problem  # its data is a part of the text, which is enough for a surface
    return Objective(
        problem.model, problem.loss, text_networks.load_data(name), metrics=problem.metrics,
        test_data=text_networks.load_data(name, train=False),
    )  # fmt: skip


def _format(arguments: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in arguments.items()]


def _write_random_weights(name: str, seed: int, file: Path) -> Path:
    """Write the weights from which a network of the zoo starts; return the file."""
    import torch
    from safetensors.torch import save_model

    from landscope import zoo
    from landscope.objective.global_state import preserve_global_state

    with preserve_global_state():
        torch.manual_seed(seed)
        save_model(zoo.CATALOG[name].build(), str(file))
    return file


def _choose_augmentation(
    target: str, arguments: Mapping[str, str], chosen: bool | None
) -> Callable[[Tensor], Tensor] | None:
    from landscope.training import augmentation
    from landscope.zoo import cifar_data, cifar_networks

    if _zoo_name(target) not in cifar_networks.NETWORKS:
        if chosen:
            raise TrainingError(
                f"--augment shifts and mirrors images of CIFAR-10, and {target} is not trained on"
                " them: leave it out."
            )
        return None
    black = [-m / s for m, s in zip(cifar_data.MEAN, cifar_data.STD, strict=True)]
    is_raw = arguments.get("normalize", "True") in ("False", "0")
    fill = (0.0, 0.0, 0.0) if is_raw else tuple(black)
    return None if chosen is False else functools.partial(augmentation.crop_and_flip, fill=fill)


def _print_history(target: str, course: Course, trained: Trained) -> None:
    """Print where training started, and the last epochs."""
    from rich.console import Console
    from rich.table import Table

    from landscope.progress import duration

    report.print_line(
        f"{target}: {course.optimizer}, {course.epochs} epochs, {duration(trained.seconds)}"
    )
    first, last = trained.history[:1], trained.history[1:][-_ROWS:]
    names = [name for name in first[0] if name not in ("epoch", "step", "learning_rate")]
    table = Table("epoch", "learning rate", *names, box=None, pad_edge=False)
    for entry in (*first, *last):
        numbers = (f"{entry[name]:.4g}" for name in names)
        table.add_row(f"{entry['epoch']:g}", f"{entry['learning_rate']:g}", *numbers)
    Console().print(table)


def _write_weights(trained: Trained, file: Path) -> None:
    from safetensors.torch import save_model

    from landscope.files import write_atomically

    with write_atomically(file) as part:
        save_model(trained.model, str(part))


def _print_next_command(
    target: str, arguments: Mapping[str, str], record: Path | None, out: Path | None
) -> None:
    if out is not None:
        report.print_files([out])
    if record is not None:
        report.print_line(
            f"\nThe path of the training: landscope trajectory {record} --out {record}-path"
        )
    elif out is not None:
        options = "".join(f" --set {text}" for text in _format(arguments))
        report.print_line(
            f"\nThe surface: landscope scan {target}{options} --checkpoint {out} --out"
            f" {out.with_suffix('')}"
        )
