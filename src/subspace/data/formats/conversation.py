"""Chat messages of any dialect to turns that alternate.

ShareGPT writes `from` and `value` with human, gpt, observation, function_call; OpenAI writes `role` and `content` with
user, assistant, tool; `dataset_info.json` may name other words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.core.errors import DataError
from subspace.core.registry import nearest
from subspace.data.examples import Framed, Role, Turn
from subspace.data.formats.columns import named, text_of

__all__ = ["alternate", "turns_of", "with_system"]

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
_TAGGED: dict[str, Role] = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "function_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
}
_KEYS = (("role", "content"), ("from", "value"))
_AFTER = {"start": {"system", "user"}, "system": {"user"}, "user": {"assistant"}, "assistant": {"user"}}
_BETWEEN_JOINED = "\n\n"


def turns_of(messages: Any, where: str, tags: Mapping[str, str]) -> tuple[Turn, ...]:
    """Return messages as turns.

    Args:
        messages: What the row holds.
        where: Place for errors.
        tags: LLaMA-Factory's tags; {} for the usual words.

    Raises:
        DataError: E-DAT-013 for an unknown role, a missing key or an empty text; E-DAT-005 for what is no text.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise _malformed(where, f"the messages are {named(messages) if messages else 'empty'}", "a list of messages")
    roles = _ROLES | {word: role for tag, role in _TAGGED.items() if (word := tags.get(tag))}
    turns = []
    for number, message in enumerate(messages, start=1):
        place = f"{where}: turn {number}"
        if not isinstance(message, Mapping):
            raise _malformed(place, f"is {named(message)}", "an object")
        role_key, content_key = _keys(message, tags, place)
        word = message[role_key]
        if not isinstance(word, str) or word not in roles:
            close = nearest(str(word), roles)
            advice = f"Did you mean {close!r}?" if close else ""
            raise _malformed(place, f"unknown role {word!r}", f"one of {', '.join(roles)}", advice)
        text = _content(message[content_key], place)
        if text.strip():
            turns.append(Turn(roles[word], Framed.of_field(text)))
        elif roles[word] != "system":  # an empty system turn says nothing
            raise _malformed(place, f"the {word} turn is empty", "a text")
    return tuple(turns)


def _keys(message: Mapping[str, Any], tags: Mapping[str, str], place: str) -> tuple[str, str]:
    wanted = [(tags.get("role_tag", "from"), tags.get("content_tag", "value"))] if tags else []
    for keys in (*wanted, *_KEYS):
        if keys[0] in message and keys[1] in message:
            return keys
    found = ", ".join(repr(key) for key in message)
    raise _malformed(place, f"the keys are {found or 'absent'}", "role and content, or from and value")


def _content(value: Any, place: str) -> str:
    """Return the text of a message; OpenAI's lists of text parts are joined."""
    if value is None:
        raise _malformed(place, "the text is null", "a text")
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        return "".join(text_of(part.get("text"), place) for part in value)
    return text_of(value, place)


def alternate(turns: tuple[Turn, ...], where: str, *, join: bool) -> tuple[Turn, ...]:
    """Return turns that go: perhaps system, then user or tool and assistant in turn, assistant last.

    Args:
        turns: From `turns_of`.
        where: Place for errors.
        join: Two user turns in a row, and two system turns at the start, become one instead of an error.

    Raises:
        DataError: E-DAT-013 for any other order.
    """
    done: list[Turn] = []
    for number, turn in enumerate(turns, start=1):
        before, side = _side(done[-1]) if done else "start", _side(turn)
        if side in _AFTER[before]:
            done.append(turn)
        elif join and side == before != "assistant":
            done[-1] = Turn(done[-1].role, done[-1].content.then(_BETWEEN_JOINED, turn.content))
        else:
            after = f"after {done[-1].role!r}" if done else "at the start"
            advice = (
                "Two user turns in a row are joined with data.on_bad_row: skip." if side == before == "user" else ""
            )
            raise _malformed(where, f"turn {number} is {turn.role!r} {after}", "roles that alternate", advice)
    if not done or done[-1].role != "assistant":
        last = repr(done[-1].role) if done else "absent"
        raise _malformed(where, f"the last turn is {last}", "an assistant turn, which is what is learnt")
    return tuple(done)


def _side(turn: Turn) -> str:
    return "user" if turn.role == "tool" else turn.role


def with_system(turns: tuple[Turn, ...], system: Framed) -> tuple[Turn, ...]:
    """Return the turns with a system turn in front, unless they have one or `system` is empty."""
    if not str(system) or (turns and turns[0].role == "system"):
        return turns
    return (Turn("system", system), *turns)


def _malformed(where: str, found: str, expected: str, action: str = "") -> DataError:
    return DataError("E-DAT-013", where=where, found=found, expected=expected, action=action)
