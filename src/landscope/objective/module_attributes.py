"""Attributes of modules that a forward pass may set: flags, caches, replaced buffers.

A module may have state outside the memory of its parameters and buffers: a flag "is rescaled", a
plain tensor, a buffer that is assigned anew. A fresh copy of the model has it as it was. Whole
numbers are left alone: a module that counts its calls goes on counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, final

from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")


class _Record(NamedTuple):
    """A dict of a module, and its entries as they were."""

    name: str  # of the module, with a dot
    table: dict[str, Any]
    entries: dict[str, Any]
    is_plain: bool  # whether it is vars(module)


@final
class ModuleAttributes:
    """The attributes of all modules of a model, as they were when this object was made.

    Args:
        model: The model.

    Cost: a few microseconds for each module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._records: list[_Record] = []
        for prefix, module in model.named_modules():
            name = f"{prefix}." if prefix else ""
            own = vars(module)
            self._records.append(_Record(name, own, dict(own), is_plain=True))
            for table in (own[key] for key in _TABLES):
                self._records.append(_Record(name, table, dict(table), is_plain=False))
        self._changing: dict[int, _Record] = {}  # those that are reset at each point

    def list_plain_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of each tensor that is neither a parameter nor a buffer."""
        for record in self._records:
            if record.is_plain:
                values = record.entries.items()
                yield from ((record.name + n, v) for n, v in values if isinstance(v, Tensor))

    def find_changes(self) -> tuple[list[str], list[str]]:
        """Return the names of parameters and buffers that were replaced, and of other changes.

        From now on :meth:`reset` resets the modules in which anything was changed.
        """
        changed = [r for r in self._records if _list_changes(r)]
        self._changing |= {id(r.table): r for r in changed if id(r.table) not in self._changing}
        replaced, others = [], []
        for record in changed:
            for name in _list_changes(record):
                if record.is_plain:
                    others.append(record.name + name)
                elif _is_in_memory(record.entries.get(name)):
                    replaced.append(record.name + name)
        return replaced, others

    def reset(self) -> None:
        """Reset the attributes of the modules in which :meth:`find_changes` saw a change."""
        for record in self._changing.values():
            _restore(record)

    def restore(self) -> None:
        """Restore every attribute."""
        for record in self._records:
            _restore(record)

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Set a plain tensor to another one, now and at each reset; restoring sets the old one."""
        for record in self._records:
            names = [n for n, value in record.entries.items() if value is old]
            if record.is_plain and names:
                current = self._changing.get(id(record.table), record).entries
                entries = {**current, **dict.fromkeys(names, new)}
                self._changing[id(record.table)] = record._replace(entries=entries)
                record.table.update(dict.fromkeys(names, new))


def _list_changes(record: _Record) -> list[str]:
    table, entries = record.table, record.entries
    if table.keys() == entries.keys() and all(map(_is, table.values(), entries.values())):
        return []
    names = {**entries, **table}
    changed = [n for n in names if n not in table or n not in entries or table[n] is not entries[n]]
    return [n for n in changed if n != "training" and type(table.get(n)) is not int]


def _is(a: object, b: object) -> bool:
    return a is b


def _is_in_memory(value: object) -> bool:
    return isinstance(value, Tensor) and not value.is_meta


def _restore(record: _Record) -> None:
    """Restore the entries of a table, in their order, but modes and whole numbers."""
    if _list_changes(record):
        current = dict(record.table)
        record.table.clear()
        for name, value in record.entries.items():
            is_live = name == "training" or type(current.get(name)) is int
            record.table[name] = current[name] if is_live else value
