"""Speed of this checkout against another one: the same work in two processes that take turns.

    python -m benchmarks.against ../other-checkout [--rounds 15]

Both processes use one Python and one set of libraries; only landscope differs. Each round runs a
case once in each process, in alternating order; the figure is the median of the ratios of the
rounds, this checkout / the other, with quartiles. Below 1 is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import write_results

CASES = {
    "surface, digits_mlp, fused": ("scan", "digits_mlp", "fused", 31),
    "surface, digits_resnet8, fused": ("scan", "digits_resnet8", "fused", 3),
    "surface, digits_resnet8, plain": ("scan", "digits_resnet8", "plain", 3),
    "journal on disk, digits_mlp": ("journal", "digits_mlp", "fused", 21),
    "adaptive points, digits_mlp": ("adaptive", "digits_mlp", "fused", 31),
    "Hessian products, digits_resnet8": ("hessian", "digits_resnet8", "", 4),
    "import landscope": ("import", "", "", 0),
    "landscope --help": ("help", "", "", 0),
}

WORKER = """
import json, os, subprocess, sys, tempfile, time
import torch
import landscope as ls
from landscope import zoo

torch.set_num_threads(2)
objectives = {}


def objective(name):
    if name not in objectives:
        objectives[name] = zoo.objective(name, epochs=1)
    return objectives[name]


def run(kind, name, forward, size):
    if kind in ("import", "help"):
        code = "import landscope" if kind == "import" else HELP
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
    given = objective(name)
    if kind == "hessian":
        hessian = ls.curvature.Hessian(given)
        vectors = torch.randn(hessian.shape[0], size, generator=torch.Generator().manual_seed(0))
        hessian @ vectors[:, 0]
        began = time.perf_counter()
        for k in range(size):
            hessian @ vectors[:, k]
        return time.perf_counter() - began
    plane = ls.Plane(given.center, *ls.directions.random(given.center))
    plan = ls.engines.Plan(workers=2, threads=1, rows=256, forward=forward)
    sampler = ls.Adaptive(resolution=size) if kind == "adaptive" else ls.Grid(size)
    with tempfile.TemporaryDirectory() as folder:
        journal = folder + "/journal" if kind == "journal" else None
        began = time.perf_counter()
        ls.scan(given, plane, sampler, engine=ls.engines.Local(plan=plan), journal=journal)
        return time.perf_counter() - began


HELP = (
    "import sys; sys.argv = ['landscope', '--help']\\n"
    "try:\\n    from landscope.cli.app import main\\n"
    "except ImportError:\\n    from landscope.cli import main\\n"
    "try:\\n    main()\\nexcept SystemExit:\\n    pass"
)
for line in sys.stdin:
    print(json.dumps(run(*json.loads(line))), flush=True)
"""


class Worker:
    """A process with the landscope of a checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, case: tuple[Any, ...]) -> float:
        """Return the seconds that a case takes."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(case), file=self.process.stdin, flush=True)
        return float(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(here: Worker, there: Worker, case: tuple[Any, ...], rounds: int) -> list[float]:
    """Return the ratio of each round, after one that is not counted."""
    here.run(case)
    there.run(case)
    ratios = []
    for number in range(rounds):
        if number % 2:
            ours = here.run(case)
            theirs = there.run(case)
        else:
            theirs = there.run(case)
            ours = here.run(case)
        ratios.append(ours / theirs)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names of cases")
    options = parser.parse_args()
    here, there = Worker(Path(__file__).parents[1]), Worker(options.other.resolve())
    rows = []
    for name in options.cases:
        ratios = compare(here, there, CASES[name], options.rounds)
        low, median, high = statistics.quantiles(ratios, n=4)
        rows.append({"case": name, "ratio": f"{median:.3f}", "quartiles": f"{low:.3f}, {high:.3f}"})
        print(rows[-1], flush=True)
    here.close()
    there.close()
    write_results("against", rows)


if __name__ == "__main__":
    main()
