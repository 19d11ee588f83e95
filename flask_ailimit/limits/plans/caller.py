"""Who pays for a request: the caller, with a payer in each role."""

import re
from dataclasses import dataclass
from functools import lru_cache

USER = "user"
SERVICE = "service"
ADDRESS = "address"
RESERVED = (SERVICE, ADDRESS)
"""Roles that the limiter gives itself: everybody together, and an address that nobody has an account for."""

_NO_ROLES = (*RESERVED, "service_class")
"""Also what else a caller has."""

_LARGEST = 10**100
"""Python writes no number of more than some thousand digits as a text."""

_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays in one role, such as a user or an organisation.

    Attributes:
        id: What tells this payer from all others of its role: a text or a whole number. Only its hash is stored.
        plan: The name of its plan; None for the default plan.
        label: A name for events, such as that of the account. It is stored nowhere.

    Raises:
        ValueError: The id is empty, or a number of more than 100 digits.
        TypeError: The id is neither a text nor a whole number, the plan is no text, or the label is no text.
    """

    id: str | int
    plan: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, (str, int)) or self.id is True or self.id is False:
            raise TypeError("Payer: the id is a text or a whole number.")
        if self.id == "":
            raise ValueError("Payer: the id is empty.")
        if isinstance(self.id, int) and abs(self.id) >= _LARGEST:
            raise ValueError("Payer: the id is a number of more than 100 digits.")
        for text in (self.plan, self.label):
            if text is not None and not isinstance(text, str):
                raise TypeError("Payer: the plan and the label are texts or None.")


class Caller:
    """Who sent a request: its payers by their roles, such as ``Caller(user=Payer("7"), organisation=Payer("9"))``.

    A payer that is None is not there. The first of the others is the caller itself: clients are told of its limits.

    Args:
        **payers: The payers. A role is 1 to 32 lower case letters, digits and underscores, the first a letter;
            ``service``, ``address`` and ``service_class`` are taken.
        service_class: The class in which this request takes from the limits of ``[service]``: a name of
            ``[service.classes]``. None for the class that the payers' plans name.

    Raises:
        ValueError: There is no such role.
        TypeError: A payer is something else, or the class is no text.
    """

    __slots__ = ("payers", "service_class")
    payers: tuple[tuple[str, Payer], ...]

    def __init__(self, *, service_class: str | None = None, **payers: Payer | None) -> None:
        if service_class is not None and not isinstance(service_class, str):
            raise TypeError("Caller: the service_class is the name of a class or None.")
        self.service_class = service_class
        found = []
        for role, payer in payers.items():
            _require_role(role)
            if payer is not None:
                if not isinstance(payer, Payer):
                    raise TypeError(f"Caller: the {role} is a Payer or None.")
                found.append((role, payer))
        self.payers = tuple(found)

    def __repr__(self) -> str:
        named = [f"{role}={payer!r}" for role, payer in self.payers]
        if self.service_class is not None:
            named.append(f"service_class={self.service_class!r}")
        return f"Caller({', '.join(named)})"


def is_role(role: object) -> bool:
    """Whether it is the name of a role that an app may use."""
    return isinstance(role, str) and _ROLE.fullmatch(role) is not None and role not in _NO_ROLES


@lru_cache(maxsize=256)
def _require_role(role: str) -> None:
    if not is_role(role):
        raise ValueError(
            "Caller: a role is 1 to 32 lower case letters, digits and underscores, the first a letter, and none of "
            f"{', '.join(_NO_ROLES)}. Got {role[:40]!r}."
        )
