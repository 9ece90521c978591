"""State of wrappers that is saved together with an environment's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from textgym.core import TextGymError


class Attached(Protocol):
    """What belongs to an environment's state though it is not part of the environment, such as a wrapper's progress."""

    def part_state(self) -> Any:
        """Its state, JSON-able."""

    def set_part_state(self, state: Any) -> None:
        """Puts the state back."""


_ATTACHED = "attached"


def with_attached(state: dict[str, Any], attached: Mapping[str, Attached]) -> dict[str, Any]:
    """``state`` of a generator together with those of attached parts, where there are any."""
    parts = {name: part.part_state() for name, part in attached.items()}
    return {**state, _ATTACHED: parts} if parts else state


def without_attached(state: dict[str, Any], attached: Mapping[str, Attached]) -> dict[str, Any]:
    """Puts back the states of attached parts; what remains is that of the generator.

    Raises:
        TextGymError: A part is not attached now.
    """
    for name, part_state in state.get(_ATTACHED, {}).items():
        if name not in attached:
            raise TextGymError(f"Expected an environment with {name!r} around it, as the saved state has that of one")
        attached[name].set_part_state(part_state)
    return {key: value for key, value in state.items() if key != _ATTACHED}
