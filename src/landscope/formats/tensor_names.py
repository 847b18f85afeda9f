"""Names of tensors: how those in a file correspond to those of a model.

A wrapper puts its own name before those of the model inside it: torch's ("module.", "_orig_mod.",
...), or the attribute in which a training framework keeps the model ("model.", "net.", ...). One
rule covers them: the names correspond when, without the wrappers of torch and without one prefix on
either side, every tensor of the model has a tensor of its name and shape in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

_WRAPPERS = {  # of torch and DeepSpeed; each stands in names as an attribute, at any depth
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
}  # fmt: skip
_COPIES = ("ema", "teacher", "target", "momentum", "swa", "average")  # of the network that trains

Shapes = Mapping[str, Sequence[int] | None]  # None where only the names are compared


@final
@dataclass(frozen=True)
class NameMatch:
    """How the names in a file correspond to those of a model.

    Args:
        sources: The name in the model -> the name in the file, for the tensors that have one.
        places: The name in the file -> the name in the model, for all names under the prefix.
        removed: The prefix that was removed from the names in the file.
        added: The prefix that was added to them.
        left_out: The names in the file without the prefix, which belong to other parts.
        others: Further prefixes under which every tensor of the model was found.
        missing: The tensors of the model that the file does not have.
        misshapen: The tensors of the model that have another shape in the file.
        unexpected: The names in the file that the model does not have.
    """

    sources: Mapping[str, str]
    places: Mapping[str, str] = field(default_factory=dict)
    removed: str = ""
    added: str = ""
    left_out: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """The number of names that do not correspond; 0 when the file fits the model."""
        return len(self.missing) + len(self.misshapen) + len(self.unexpected)

    @property
    def is_copy(self) -> bool:
        """Whether the prefix is that of a copy of the network, such as its moving average."""
        return any(word in self.removed.lower() for word in _COPIES)


def match_names(
    expected: Shapes,
    given: Shapes,
    tied: Mapping[str, frozenset[str]] = {},
    *,
    optional: Iterable[str] = (),
    strict: bool = True,
) -> NameMatch:
    """Return how the names in a file correspond to those of a model.

    Names that correspond as they are stay. Otherwise the wrappers of torch are removed on both
    sides, and one prefix is removed from the names in the file, or added to them. Where several
    prefixes fit, copies of the network (EMA, teacher, target) come last. A model that is only a
    small part of what the file holds does not fit.

    Args:
        expected: The shapes of the model's tensors.
        given: The shapes of the tensors in the file.
        tied: The name in the model -> all names of the same tensor, of which one is enough.
        optional: The tensors of the model that the file may lack.
        strict: Whether every tensor in the file, under the prefix, must be one of the model.

    Returns:
        The match with the fewest errors.
    """
    rule = _Rule(expected, given, tied, frozenset(optional), strict)
    as_they_are = {n: n for n in expected}, {n: n for n in given}
    unchanged = rule.match(*as_they_are, "", "")
    if not unchanged.errors:
        return unchanged
    matches = [unchanged]
    for model, file in (as_they_are, (_remove_wrappers(expected), _remove_wrappers(given))):
        matches += [rule.match(model, file, *change) for change in _list_changes(model, file)]
    best = min(matches, key=lambda match: (match.errors, match.is_copy))
    used = set(best.sources.values())
    others = {
        min(m.sources.values()): m.removed
        for m in reversed(matches)
        if not m.errors and used.isdisjoint(m.sources.values())
    }
    rest = [n for n in best.left_out if not n.startswith(tuple(others.values()))]
    if strict and len(rest) > len(used):  # the model is a small part of what the file holds
        return unchanged
    return dataclasses.replace(best, others=tuple(others.values()))


@final
@dataclass(frozen=True)
class _Rule:
    """What has to correspond; see :func:`match_names`."""

    expected: Shapes
    given: Shapes
    tied: Mapping[str, frozenset[str]]
    optional: frozenset[str]
    strict: bool

    def match(
        self, model: Mapping[str, str], file: Mapping[str, str], removed: str, added: str
    ) -> NameMatch:
        """Return the match for one change of the names.

        Args:
            model: The name without wrappers -> the name in the model.
            file: The name without wrappers -> the name in the file.
            removed: The prefix that is removed from the names in the file.
            added: The prefix that is added to them; all names in the model have it.
        """
        places = {name: removed + bare.removeprefix(added) for bare, name in model.items()}
        sources = {name: file[place] for name, place in places.items() if place in file}
        inside = {name: bare for bare, name in file.items() if bare.startswith(removed)}
        renamed = {name: added + bare.removeprefix(removed) for name, bare in inside.items()}
        unused = set(inside).difference(sources.values())
        outside = set(self.given).difference(inside)
        return NameMatch(
            sources,
            renamed | {source: name for name, source in sources.items()},
            removed,
            added,
            left_out=tuple(n for n in self.given if n in outside),
            missing=tuple(n for n in places if self._is_missing(n, sources)),
            misshapen=tuple(n for n, s in sources.items() if self.given[s] != self.expected[n]),
            unexpected=tuple(n for n in inside if n in unused) if self.strict else (),
        )

    def _is_missing(self, name: str, sources: Mapping[str, str]) -> bool:
        names = self.tied.get(name, frozenset((name,)))
        return name not in self.optional and names.isdisjoint(sources)


def remove_wrappers(name: str) -> str:
    """Return a name without the wrappers of torch."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _remove_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return name without wrappers -> name; all names as they are if two would be the same."""
    names = list(names)
    bare = {remove_wrappers(name): name for name in names}
    return bare if len(bare) == len(names) else {name: name for name in names}


def _list_changes(model: Iterable[str], file: Iterable[str]) -> list[tuple[str, str]]:
    """Return the prefixes to remove and to add with which some of the names correspond."""
    model, file = list(model), list(file)
    probes = dict.fromkeys((model[0], model[len(model) // 2], model[-1])) if model else ()
    changes: dict[tuple[str, str], None] = {}
    for added in ("", *_list_common_prefixes(model)):
        for probe in probes:
            ending = probe.removeprefix(added)
            for name in file:
                if name == ending or name.endswith("." + ending):
                    changes[name.removesuffix(ending), added] = None
    return list(changes)


def _list_common_prefixes(names: list[str]) -> list[str]:
    """Return the prefixes, each up to a dot, that all names have, in ascending length."""
    prefixes = []
    parts = names[0].split(".")[:-1] if names else []
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            break
        prefixes.append(prefix)
    return prefixes
