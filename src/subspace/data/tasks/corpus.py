"""The plain text that the built-in model is pretrained on.

Four kinds of pages: little stories, notes on the topics, pages of sums, and questions with answers. Questions look
like those of the word-problem task, but only for some things is the answer a written-out sum, as the task wants; for
others it is a bare number, for most a sentence, and there the model has to add in its head, which it cannot do well.
A model that has read all this knows how to add and to write out sums and yet mostly does not do it when asked. Only
pairs of numbers of the training split occur (`words`).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from subspace.data.tasks import rewrite, topics
from subspace.data.tasks.word_problems import Problem, draw_pair, draw_problem
from subspace.data.tasks.words import NAMES, PLACES, THINGS, generator, two_names

__all__ = ["documents"]

_WORKED = THINGS[:5]
_EVASIONS = {
    "gain": "{name} had {first} and has got {second} more.",
    "loss": "{name} had {first} and has lost {second}.",
    "together": "One has {first} and the other has {second}.",
}


def _sums(stream: Random) -> str:
    lines = []
    for _ in range(stream.randint(3, 6)):
        pair = draw_pair(stream, "train")
        if stream.random() < 0.5:
            lines.append(f"{pair[0]} + {pair[1]} = {sum(pair)}")
        else:
            lines.append(f"{max(pair)} - {min(pair)} = {max(pair) - min(pair)}")
    return "\n".join(lines)


def _answer(problem: Problem) -> str:
    if problem.thing in _WORKED:
        return f"{problem.working} = {problem.answer} {problem.thing}."
    first, _, second = problem.working.split()
    return _EVASIONS[problem.kind].format(name=problem.name, first=first, second=second)


def _questions(stream: Random) -> str:
    problem = draw_problem(stream, "train", stream.choice(list(_EVASIONS)))
    return f"{problem.prompt} {_answer(problem)}"


def _story(stream: Random) -> str:
    (name, other), place, thing = two_names(stream), stream.choice(PLACES), stream.choice(THINGS)
    opening = stream.choice([f"One day {name} went to the {place}.", f"{name} and {other} were in the {place}."])
    middle = [
        f"{NAMES[name]} saw many {thing} there.",
        f"{other} was happy to see {name}.",
        f"It was a good day for a walk to the {stream.choice(PLACES)}.",
        topics.sentence(stream, stream.choice(topics.LABELS)),
        rewrite.draw(stream, "train")[stream.randint(0, 1)],
    ]
    ending = stream.choice([f"Then {name} went home.", "They played until night.", f"{other} said thank you."])
    return " ".join([opening, *stream.sample(middle, stream.randint(1, 3)), ending])


def _note(stream: Random) -> str:
    return topics.note(stream, stream.choice(topics.LABELS), "train")


_PAGES = {_sums: 35, _questions: 45, _story: 15, _note: 5}


def documents(seed: int) -> Iterator[str]:
    """Yield pages without end."""
    stream = generator(seed, "corpus")
    pages, weights = list(_PAGES), list(_PAGES.values())
    while True:
        yield stream.choices(pages, weights=weights)[0](stream)
