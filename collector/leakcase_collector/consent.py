"""Consent: what may be done to the target, asked before, recorded with the answer.

`observe` is always allowed. The other levels are asked: ``--allow`` answers beforehand, a
terminal asks in words, and without either the answer is no. `dump` is never given by "all".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from leakcase_bundle.records import Consent

from .errors import UsageError
from .probes.base import Prediction, Probe

#: A level whose probes are asked for together: none of them stops or changes the target.
ASKED_ONCE = "read-memory"
LEVELS = ("observe", "read-memory", "trace", "attach", "dump")

WHAT_IT_DOES = {
    "observe": "reads text under /proc and /sys",
    "read-memory": "reads the target's memory without stopping it; contents never leave the host",
    "trace": "places kernel probes (perf_event, eBPF) for short times",
    "attach": "stops the target for a moment or runs code in it",
    "dump": "writes a core file beside the case, never in it",
}


def parse_levels(text: str) -> frozenset[str]:
    """The levels of ``--allow LEVEL,...``; "all" is every level but dump.

    Raises UsageError for a word that is not a level.
    """
    levels: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == "all":
            levels.update(LEVELS[:-1])
        elif word in LEVELS:
            levels.add(word)
        else:
            raise UsageError(
                f"--allow {word}: there is no such level; the levels are {', '.join(LEVELS)}."
            )
    return frozenset(levels)


@dataclass(frozen=True)
class Question:
    """One probe's request for its level, and what it would cost."""

    probe: Probe
    predict: Callable[[], Prediction]

    concerns: Callable[[], bool] = lambda: True

    def text(self) -> str:
        """What, why, what it costs and what could go wrong."""
        prediction = self.predict()
        stop = (
            f"stops the target for about {prediction.stop_ns / 1e9:.2g} s"
            if prediction.stop_ns
            else "does not stop the target"
        )
        toll = self.probe.toll()
        return (
            f"{self.probe.name} ({self.probe.level}: {WHAT_IT_DOES[self.probe.level]})\n"
            f"  reads {self.probe.reads}; {stop}; about {prediction.cpu_ns / 1e6:.3g} ms "
            f"of CPU a call\n" + (f"  what it costs the target: {toll}\n" if toll else "")
            + f"  what could go wrong: {self.probe.risk}"
        )  # fmt: skip


def _text_of_all(questions: Sequence[Question]) -> str:
    """Several probes of one level in one question."""
    level = questions[0].probe.level
    lines = [f"{level}: {WHAT_IT_DOES[level]}"]
    for question in questions:
        cpu_ns = question.predict().cpu_ns
        lines.append(
            f"  {question.probe.name}: {question.probe.reads}; {cpu_ns / 1e6:.3g} ms a call"
        )
    risks = dict.fromkeys(question.probe.risk for question in questions)
    return "\n".join([*lines, *(f"  what could go wrong: {risk}" for risk in risks)])


def settle(
    questions: Iterable[Question],
    allowed: frozenset[str],
    ask: Optional[Callable[[str], bool]],
) -> tuple[list[Consent], list[Probe], list[Probe]]:
    """Answer every question; returns the consents, the allowed probes and the refused ones.

    A probe that is not allowed beforehand and finds nothing in this process is in neither.

    `ask` shows a text and returns the answer; None: there is no terminal, the answer is no.
    """
    consents: list[Consent] = [Consent("observe", "yes", "default")]
    granted: list[Probe] = []
    refused: list[Probe] = []
    asked = list(questions)
    answers: dict[str, bool] = {}
    for question in asked:
        level, name = question.probe.level, question.probe.name
        if level == "observe":
            granted.append(question.probe)
            continue
        if level in allowed:
            answer, how = True, "option"
        elif not question.concerns():
            continue  # There is nothing to read for it, and nothing to ask.
        elif ask is None:
            answer, how = False, "no-terminal"
        elif level == ASKED_ONCE:
            if level not in answers:
                alike = [q for q in asked if q.probe.level == level and q.concerns()]
                answers[level] = ask(question.text() if len(alike) == 1 else _text_of_all(alike))
            answer, how = answers[level], "terminal"
        else:
            answer, how = ask(question.text()), "terminal"
        consents.append(Consent(level, "yes" if answer else "no", how, name))
        (granted if answer else refused).append(question.probe)
    return consents, granted, refused


def levels_given(consents: Sequence[Consent]) -> list[str]:
    """The levels with at least one yes, in order of invasiveness."""
    given = {consent.level for consent in consents if consent.answer == "yes"}
    return [level for level in LEVELS if level in given]
