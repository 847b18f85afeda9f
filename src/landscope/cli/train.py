"""The command that trains: from words to a network, and the folder of the path that it took.

Whatever is heavy (torch) is imported inside the functions, so that ``--help`` is quick.
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
_ROWS = 8  # epochs that are told at the end


Optimizer = Literal["sgd", "adam", "adamw", "sam"]
Rate = Annotated[
    float | None,
    typer.Option(help="Before it falls; 0.1, or 0.001 for adam and adamw, if not given."),
]
Decay = Annotated[
    float | None, typer.Option(help="Weight decay; 5e-4, or 0.01 for adamw, if not given.")
]
Epochs = Annotated[
    int | None, typer.Option(help="Walks through the data; 30, or 300 on CIFAR-10, if not given.")
]
Drops = Annotated[
    str | None,
    typer.Option(
        help="Epochs after which the learning rate falls, such as 15,22; at 50%, 75% and 92% of"
        " them if not given; none for never."
    ),
]
Record = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints; training goes on in it.")
]
Every = Annotated[str, typer.Option(help="A checkpoint an epoch, or one in so many steps.")]
Keep = Annotated[
    int | None, typer.Option(help="At most so many checkpoints (200, say); all if not given.")
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
            help="sam is sharpness-aware: two gradients a step; if not given, sgd, and adamw for"
            " text."
        ),
    ] = None,
    learning_rate: Rate = None,
    momentum: Annotated[float, typer.Option(help="Of sgd and sam.")] = 0.9,
    nesterov: Annotated[bool, typer.Option(help="Whether that momentum looks ahead.")] = True,
    weight_decay: Decay = None,
    rho: Annotated[float, typer.Option(help="How far sam climbs.")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    epochs: Epochs = None,
    drops: Drops = None,
    factor: Annotated[float, typer.Option(help="By which the learning rate falls.")] = 0.1,
    warmup: Annotated[int, typer.Option(help="Epochs in which it rises from 0 first.")] = 0,
    label_noise: Annotated[
        float, typer.Option(help="Share of the training labels replaced by random ones.")
    ] = 0.0,
    augment: Annotated[
        bool | None,
        typer.Option(help="Shift and mirror images; on CIFAR-10 if not given."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of weights, order, noise and all else that is drawn.")
    ] = 0,
    every: Every = "epoch",
    keep: Keep = None,
    checkpoint: Checkpoint = None,
    set_: Arguments = None,
) -> None:
    """Train a network, and keep the path that it takes: what the 2018 training script did.

    A network of the zoo begins with random weights (or --checkpoint); a target of your own begins
    with those that its function gives. After Ctrl-C or a crash the same command goes on after the
    last whole epoch.
    """
    from landscope.progress import show_bar
    from landscope.training import augmentation, loop
    from landscope.training.optimizers import Course

    _check_kept(record, out)
    chosen: dict[str, Any] = {
        "learning_rate": learning_rate, "weight_decay": weight_decay, "drops": _drops(drops),
        "epochs": _epochs(target, epochs),
    }  # fmt: skip
    course = Course(
        _optimizer(target, optimizer), momentum=momentum, nesterov=nesterov, rho=rho,
        batch_size=batch_size, factor=factor, warmup=warmup, seed=seed,
        **{name: value for name, value in chosen.items() if value is not None},
    )  # fmt: skip
    given = _arguments(target, set_ or (), seed)
    objective = _objective(target, given, checkpoint, seed)
    objective = augmentation.corrupt_labels(objective, label_noise, seed=seed)
    asked = {
        "command": "train", "target": target, "set": given, "label_noise": label_noise,
        "checkpoint": checkpoint,
    }  # fmt: skip
    going_on = contextlib.nullcontext() if record is None else report.stoppable(record)
    with going_on, show_bar(f"train {target}", "steps", values=True) as progress:
        trained = loop.train(
            objective, course, record=record, every=_every(every), keep=keep, asked=asked,
            augment=_augmentation(target, given, augment), progress=progress,
        )  # fmt: skip
    _tell(target, course, trained)
    if out is not None:
        _write(trained, out)
    _tell_next(target, given, record, out)


def _check_kept(record: Path | None, out: Path | None) -> None:
    if record is None and out is None:
        raise TrainingError(
            "nothing would be kept: add --record FOLDER for the path, or --out FILE.safetensors for"
            " the trained weights alone."
        )
    if out is not None and out.suffix != ".safetensors":
        raise TrainingError(f"--out {out}; expected a file that ends in .safetensors.")
    if out is not None and not out.parent.is_dir():
        raise TrainingError(f"--out {out}: the folder {out.parent} does not exist: make it first.")


def _drops(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(map(int, text.split(","))) if text != "none" else ()
    except ValueError:
        raise TrainingError(f"--drops {text}; expected epochs such as 15,22,27, or none.") from None


def _every(text: str) -> Literal["epoch"] | int:
    if text == "epoch":
        return "epoch"
    try:
        return int(text)
    except ValueError:
        raise TrainingError(f"--every {text}; expected epoch, or a number of steps.") from None


def _zoo_name(target: str) -> str:
    """Return NAME of zoo:NAME; nothing of another target."""
    place, _, name = target.rpartition(":")
    return name if place == "zoo" else ""


def _optimizer(target: str, chosen: Optimizer | None) -> str:
    from landscope.zoo import text_networks

    if chosen is not None:
        return chosen
    return "adamw" if _zoo_name(target) in text_networks.NETWORKS else "sgd"


def _epochs(target: str, chosen: int | None) -> int | None:
    from landscope.zoo import cifar_networks

    is_cifar = _zoo_name(target) in cifar_networks.NETWORKS
    return _EPOCHS_2018 if chosen is None and is_cifar else chosen


def _arguments(target: str, texts: Sequence[str], seed: int) -> dict[str, str]:
    """Return the arguments of the target by name; the zoo draws splits with the same seed."""
    given = {name: value for name, _, value in (text.partition("=") for text in texts)}
    return {"seed": str(seed), **given} if _zoo_name(target) else given


def _objective(
    target: str, given: Mapping[str, str], checkpoint: Path | None, seed: int
) -> Objective:
    """Return what to train: all training data of a network of the zoo, and its test data."""
    from landscope import zoo
    from landscope.cli import targets
    from landscope.objective.objective import Objective
    from landscope.zoo import text_networks

    name = _zoo_name(target)
    if name not in zoo.CATALOG:
        return targets.objective(target, arguments=_texts(given), checkpoint=checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        start = checkpoint or _random_weights(name, seed, Path(folder) / "start.safetensors")
        arguments = _texts({"test": "True", **given})
        made = targets.objective(target, arguments=arguments, checkpoint=start)
    if name not in text_networks.NETWORKS:
        return made
    return Objective(  # a surface of it is made of some of the text
        made.model, made.problem.loss, text_networks.load_data(name), metrics=made.problem.metrics,
        test_data=text_networks.load_data(name, train=False),
    )  # fmt: skip


def _texts(given: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in given.items()]


def _random_weights(name: str, seed: int, file: Path) -> Path:
    """Write the weights that training of a network of the zoo begins with."""
    import torch
    from safetensors.torch import save_model

    from landscope import zoo
    from landscope.objective.global_state import preserve_global_state

    with preserve_global_state():
        torch.manual_seed(seed)
        save_model(zoo.CATALOG[name].build(), str(file))
    return file


def _augmentation(
    target: str, given: Mapping[str, str], chosen: bool | None
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
    is_raw = given.get("normalize", "True") in ("False", "0")
    fill = (0.0, 0.0, 0.0) if is_raw else tuple(black)
    return None if chosen is False else functools.partial(augmentation.crop_and_flip, fill=fill)


def _tell(target: str, course: Course, trained: Trained) -> None:
    """Tell where training began, and the last epochs."""
    from rich.console import Console
    from rich.table import Table

    from landscope.scanning.cost import duration

    report.say(f"{target}: {course.optimizer}, {course.epochs} epochs, {duration(trained.seconds)}")
    first, last = trained.history[:1], trained.history[1:][-_ROWS:]
    names = [name for name in first[0] if name not in ("epoch", "step", "learning_rate")]
    table = Table("epoch", "learning rate", *names, box=None, pad_edge=False)
    for entry in (*first, *last):
        numbers = (f"{entry[name]:.4g}" for name in names)
        table.add_row(f"{entry['epoch']:g}", f"{entry['learning_rate']:g}", *numbers)
    Console().print(table)


def _write(trained: Trained, file: Path) -> None:
    from safetensors.torch import save_model

    from landscope.files import write_atomically

    with write_atomically(file) as part:
        save_model(trained.model, str(part))


def _tell_next(
    target: str, given: Mapping[str, str], record: Path | None, out: Path | None
) -> None:
    if out is not None:
        report.tell_files([out])
    if record is not None:
        report.say(f"\nThe path that it took: landscope trajectory {record} --out {record}-path")
    elif out is not None:
        words = "".join(f" --set {text}" for text in _texts(given))
        report.say(
            f"\nThe surface: landscope scan {target}{words} --checkpoint {out} --out"
            f" {out.with_suffix('')}"
        )
