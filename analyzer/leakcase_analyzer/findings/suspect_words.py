"""What was seen of who allocates, in sentences that claim no more than was seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakcase_analyzer.code_names import place, whence
from leakcase_analyzer.findings.fates import PlaceFate
from leakcase_analyzer.findings.suspect import Basis, Suspect
from leakcase_analyzer.sentences import Count, Name, Quantity, Sentence, Share, Size, Span, say
from leakcase_analyzer.trace_looks import Frame
from leakcase_bundle.records import TraceContents

#: What fewer blocks than this are does not say what the others are.
MOST_PERMILLE = 500
#: From this share of what is alive on, blocks that look like one another are worth a word.
WEAK_SHARE = 0.1
#: In windows as few as this one size says little.
LEAST_BLOCKS = 2
LABELS = (
    ("text_permille", "text"),
    ("zeros_permille", "zeros"),
    ("pointers_permille", "pointers"),
    ("random_permille", "bytes that look random"),
)


def named(frame: Frame | None) -> tuple[str, dict[str, Name]]:
    """A template for a place in the code, and the names in it."""
    if frame is None:
        return "code of which no stack was kept", {}
    where = whence(frame)
    if where is None:
        return "{function}", {"function": Name(place(frame))}
    return "{function} ({where})", {"function": Name(place(frame)), "where": Name(where)}


def claim(
    basis: Basis,
    suspects: Sequence[Suspect],
    passing: Sequence[Suspect],
    in_work: Sequence[Suspect],
    windows: int,
    seconds: float,
    allocations: int,
    followed_seconds: float,
) -> Sentence:
    """How much was watched, and what came of it, in one sentence."""
    text = "in {windows} of {span} {allocations} were seen: "
    watched: dict[str, Quantity] = {
        "windows": Count(windows, "window"),
        "span": Span(seconds / max(1, windows)),
        "allocations": Count(allocations, "allocation"),
    }
    if not allocations:
        text = (
            "in {windows} of {span} not one allocation was seen: what grows is made otherwise, or "
        )
        return say(text + "between the windows", **watched)
    if not suspects:
        rest = "none of their blocks stayed" if not passing else "all whose blocks stayed let go"
        if in_work:
            text += "memory does not rise, and what was alive {age} later is as likely in work"
            return say(text + " as kept", **watched, age=Span(followed_seconds))
        return say(text + rest + " within {age}", **watched, age=Span(followed_seconds))
    first = suspects[0]
    what, names = named(first.frame)
    share = Share(first.share or 0.0)
    if basis == "window":
        text += "{share} of what was not freed at once is of " + what
        return say(text + ", and nobody looked again", **watched, share=share, **names)
    text += "{share} of what was still alive up to {age} later was allocated in " + what
    age = Span(first.curve.last_age_seconds)
    return say(text, **watched, share=share, age=age, **names)


def evidence_of(
    fate: PlaceFate,
    alive: float,
    followed: float,
    weak: float,
    contents: TraceContents | None,
    by_state: Sentence | None,
) -> Iterator[Sentence]:
    """What was seen of one place's blocks: how many stayed and went, what they are, and when."""
    yield _seen(fate, alive, followed)
    yield from _curve(fate)
    if weak >= WEAK_SHARE * max(1.0, alive):
        yield say(
            "{weak} of these hold nothing that tells them from others of their kind: another "
            "block in the same place would look the same",
            weak=Count(min(weak, alive), ""),
        )
    if contents is not None:
        yield from what_they_hold(contents)
    if alive >= LEAST_BLOCKS:
        held = sum(batch.alive_bytes for batch in fate.batches)
        yield say("a block has {size} on average", size=Size(held / alive))
    if len(fate.frames) > 1:
        yield say("it was reached by {stacks}", stacks=Count(len(fate.frames), "different stack"))
    if by_state is not None:
        yield by_state


def _seen(fate: PlaceFate, alive: float, followed: float) -> Sentence:
    if not fate.curve.ages_seconds:
        return say(
            "{kept} of {made} outlived their window; nobody looked again",
            kept=Count(followed, "block"),
            made=Count(fate.allocations, ""),
        )
    gone = round(followed - alive)
    text = (
        "{alive} of {followed} that outlived their window still held the words that identify them "
        "after up to {age}; "
    )
    quantities: dict[str, Quantity] = {
        "alive": Count(round(alive), ""),
        "followed": Count(round(followed), "block"),
        "age": Span(fate.curve.last_age_seconds),
    }
    if gone <= 0:
        return say(text + "none was seen freed", **quantities)
    return say(text + "{gone} went", **quantities, gone=Count(gone, ""))


def _curve(fate: PlaceFate) -> Iterator[Sentence]:
    found = fate.curve
    age = Span(found.last_age_seconds)
    if found.pattern == "dies":
        share = Share(found.last_share)
        yield say("they go on being freed: {share} are left at {age}", share=share, age=age)
    elif found.pattern == "stays" and found.last_share < 0.9:
        yield say(
            "{share} of them were left early on, and those stayed: it frees some and keeps others",
            share=Share(found.last_share),
        )
    elif found.pattern == "unclear" and found.ages_seconds:
        yield say("too few were followed, or not for long enough, to tell whether they stay")


def what_they_hold(contents: TraceContents) -> Iterator[Sentence]:
    """What most of the blocks that were looked at are."""
    if contents.class_name is not None and (contents.class_permille or 0) >= MOST_PERMILLE:
        yield say(
            "{share} of the {blocks} looked at are objects of {name}",
            share=Share(min(1.0, (contents.class_permille or 0) / 1000)),
            blocks=Count(contents.blocks, "block"),
            name=Name(str(contents.class_name)),
        )
        return
    for column, words in LABELS:
        permille = getattr(contents, column)
        if permille >= MOST_PERMILLE:
            yield say(
                "{share} of the {blocks} looked at hold " + words,
                share=Share(min(1.0, permille / 1000)),
                blocks=Count(contents.blocks, "block"),
            )
            return
