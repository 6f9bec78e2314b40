"""What an engine has to do at a moment, and how far it is: what whoever owns it is told once a second."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLoad:
    """A call in flight, by the name of its work: its requests, and how many of them are answered."""

    name: str
    num_requests: int
    num_answered: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """The calls that one engine process is at work on; `process` tells it from the one that takes its place once it has died."""

    process: str
    calls: tuple[CallLoad, ...] = ()
