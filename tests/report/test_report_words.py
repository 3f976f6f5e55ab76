"""Words: both languages say the same things, with the same places to fill, and a page holds both."""

from __future__ import annotations

import re

import pytest

from subspace.report.measures import Measure
from subspace.report.words.phrase import Strong, both, dated, listed, plain, say
from subspace.report.words.strings import STRINGS

PLACES = re.compile(r"{(\w+)}")


def test_every_language_has_every_word() -> None:
    for language, text in STRINGS.items():
        assert set(text) == set(STRINGS["en"]), language
        assert text["language"] == language
        assert all(text[key] for key in text if key != "between_sentences")


@pytest.mark.parametrize("key", sorted(STRINGS["en"]))
def test_every_language_fills_the_same_places(key: str) -> None:
    assert {language: sorted(PLACES.findall(text[key])) for language, text in STRINGS.items()} == {
        language: sorted(PLACES.findall(STRINGS["en"][key])) for language in STRINGS
    }


def test_chinese_is_chinese() -> None:
    sentences = {key: PLACES.sub("", text) for key, text in STRINGS["zh"].items()}
    assert not {key for key, text in sentences.items() if len(re.findall("[a-z]{4,}", text)) > 2}
    foreign = {key for key, text in sentences.items() if not re.search("[\u4e00-\u9fff]", text) and len(text) > 20}
    assert foreign == set()


def test_a_sentence_is_told_in_both_and_escaped() -> None:
    found = say("score_alone", arm=Strong("<b>"), score="1 %", metric=say("metric_loss"), data="x")
    assert plain(found, "en") == "<b> with 1 % loss (x)."
    assert plain(found, "zh") == "<b>，损失 1 %（x）。"
    assert both(found) == (
        '<span lang="en"><b>&lt;b&gt;</b> with 1 % loss (x).</span>'
        '<span lang="zh-Hans"><b>&lt;b&gt;</b>，损失 1 %（x）。</span>'
    )
    assert both("1 < 2") == "1 &lt; 2"
    assert dated("title", "a", "en") == ' title="a"'
    assert dated("title", say("seed"), "zh").startswith(
        ' title="种子" data-say-title="{&quot;en&quot;: &quot;Seed&quot;'
    )


def test_lists_read_as_lists() -> None:
    assert plain(listed(["a"]), "en") == "a"
    assert plain(listed(["a", "b", "c"]), "en") == "a, b and c"
    assert plain(listed(["a", "b", "c"]), "zh") == "a、b 和 c"
    assert plain(listed(list("abcdef"), 4), "en") == "a, b, c and 3 more"


def test_scores_and_differences_are_written_by_their_kind() -> None:
    share, loss = Measure.of("accuracy", [0.5, 1.0]), Measure.of("loss", [0.5, 0.9])
    assert (share.value(0.8349), loss.value(0.8349)) == ("83.5 %", "0.8349")
    assert share.bare(-0.0312, signed=True) == "−3.1"
    assert share.bare(0.0312, signed=True) == "+3.1"
    assert share.bare(-0.0001) == "0.0"
    assert loss.bare(-0.03123, signed=True) == "−0.0312"
    assert plain(share.difference(0.01), "en") == "1.0 points"
    assert plain(share.span(0.1, 0.25), "en") == "10.0 to 25.0 %"
    assert share.bare(float("-inf")) == "−∞"
    assert not Measure.of("own", [0.5, 3.0]).share
