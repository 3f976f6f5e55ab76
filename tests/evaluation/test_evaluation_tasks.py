"""Tasks without a model: prompts, layouts of rows, shots, sources, and what they say of bad ones."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fixtures.stories260k import DATA
from subspace.core.errors import ConfigError, DataError
from subspace.evaluation.tasks import find_task, task_names
from subspace.evaluation.tasks.documents import SourceOverride, override_for, read_documents
from subspace.evaluation.tasks.glue import PARTS
from subspace.evaluation.tasks.record import split_name, task_record

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, rows: list[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def adapters(question: str, options: str, answer: str, output: str = "") -> dict[str, str]:
    text = f"Please choose the correct answer to the question: {question}\n\n{options}\n\nAnswer format: a/b"
    return {"instruction": text, "input": "", "output": output, "answer": answer}


ROWS: dict[str, tuple[list[Mapping[str, Any]], str, tuple[str, ...], int]] = {
    "arc_easy": (
        [
            {"question": "Why?", "choices": {"text": ["so", "thus"], "label": ["A", "B"]}, "answerKey": "B"},
            {"question": "Why?", "choices": {"text": ["so", "thus"], "label": ["1", "2"]}, "answerKey": "2"},
            adapters("Why?", "Answer1: so Answer2: thus", "answer2"),
        ],
        "Question: Why?\nAnswer:",
        ("so", "thus"),
        1,
    ),
    "openbookqa": (
        [
            {"question_stem": "It is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "A"},
            adapters("It is", "Answer1: hot Answer2: cold", "answer1"),
        ],
        "It is",
        ("hot", "cold"),
        0,
    ),
    "piqa": (
        [
            {"goal": "Open it", "sol1": "pull", "sol2": "push", "label": 1},
            {"instruction": "Please choose the correct solution to the question: Open it\n\nSolution1: pull\n\n"
             "Solution2: push\n\nAnswer format: solution1/solution2", "output": "", "answer": "solution2"},
        ],
        "Question: Open it\nAnswer:",
        ("pull", "push"),
        1,
    ),
    "siqa": (
        [
            {"context": "Ann left.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
            adapters("Ann left. Why?", "Answer1: a Answer2: b Answer3: c", "answer3"),
        ],
        "Q: Ann left. Why?\nA:",
        ("a", "b", "c"),
        2,
    ),
    "hellaswag": (
        [
            {"activity_label": "Baking", "ctx_a": "A cake [header] is  made.", "ctx_b": "the Cook", "label": "1",
             "endings": ["sings. [title] He ends", " eats [substeps] it."]},
            {"instruction": "Please choose the correct ending to complete the given sentence: Baking: A cake is made. "
             "The cook\n\nEnding1: sings.. He ends Ending2: eats it.\n\nAnswer format: ending1/ending2",
             "output": "", "answer": "ending2"},
        ],
        "Baking: A cake is made. The cook",
        ("sings.. He ends", "eats it."),
        1,
    ),
    "boolq": (
        [
            {"passage": "It is.", "question": "is it", "label": True},
            {"passage": "It is.", "question": "is it", "label": 1},
            {"passage": "It is.", "question": "is it", "answer": True},
        ],
        "It is.\nQuestion: is it?\nAnswer:",
        ("no", "yes"),
        1,
    ),
    "mmlu/anatomy": (
        [
            {"subject": "anatomy", "question": " Which? ", "choices": ["w", "x", "y", "z"], "answer": "C"},
            {"subject": "anatomy", "question": "Which?", "choices": ["w", "x", "y", "z"], "answer": 2},
        ],
        "Which?\nA. w\nB. x\nC. y\nD. z\nAnswer:",
        ("A", "B", "C", "D"),
        2,
    ),
    "glue/mrpc": (
        [
            {"sentence1": "a", "sentence2": "b", "label": 0},
            {"sentence1": "a", "sentence2": "b", "label": "not_equivalent"},
        ],
        "Sentence 1: a\nSentence 2: b\nQuestion: Do both sentences mean the same thing?\nAnswer:",
        ("no", "yes"),
        0,
    ),
    "glue/rte": (
        [
            {"sentence1": "a", "sentence2": "b", "label": 1},
            {"premise": "a", "hypothesis": "b", "label": "not_entailment"},
        ],
        "a\nQuestion: b True or False?\nAnswer:",
        ("True", "False"),
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_layout_gives_the_same_question(name: str) -> None:
    rows, question, choices, gold = ROWS[name]
    task = find_task(name)
    assert task.choices is not None
    assert task.gold is not None
    for row in rows:
        doc = task.to_doc(row, "row")
        assert doc is not None
        assert (task.question(doc), tuple(task.choices(doc)), task.gold(doc)) == (question, choices, gold)


def test_winogrande_puts_each_name_before_the_same_rest() -> None:
    task = find_task("winogrande")
    hub = {"sentence": "Ann met Bea so _ left early.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    text = (
        "Please choose the correct answer to fill in the blank to complete the given sentence: Ann met Bea so _ left "
    )
    options = "Option1: Ann Option2: Bea Answer format: option1/option2"
    other = {"instruction": f"{text}early.\n\n{options}", "output": "", "answer": "option2"}
    assert task.contexts is not None
    for row in (hub, other):
        doc = task.to_doc(row, "row")
        assert doc is not None
        assert task.contexts(doc) == ("Ann met Bea so Ann", "Ann met Bea so Bea")
        assert task.target(doc) == "left early."
        assert task.preamble(doc, [doc]) == "Ann met Bea so Bea left early.\n\n"


def test_shots_come_with_their_answers_and_a_description() -> None:
    task = find_task("mmlu/anatomy")
    shot, doc = ({"subject": "anatomy", "question": q, "choices": ("w", "x", "y", "z"), "answer": 3} for q in "12")
    body = "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    first = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    assert task.prompt(doc, [shot]) == f"{first}1{body} D\n\n2{body}"


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 4 + 3 = 7\n#### 7", 1, 1),
        ("#### $7.", 0, 1),
        ("#### 7.", 1, 1),
        ("#### 1,007", 0, 0),
        ("the answer is 7", 0, 1),
        ("the answer is $7 for 2", 0, 0),
        ("#### 7\n#### 8", 1, 0),
        ("#### -7", 0, 0),
        ("####7", 0, 1),
        ("", 0, 0),
        ("none", 0, 0),
    ],
)
def test_gsm8k_reads_answers(text: str, strict: int, flexible: int) -> None:
    task = find_task("gsm8k")
    assert task.grade is not None
    found = task.grade({"question": "", "answer": "it is\n#### 7"}, text)
    assert found == {"exact_match": strict, "exact_match_flexible": flexible}


def test_gsm8k_reads_planted_answers_as_the_harness_does() -> None:
    pytest.importorskip("lm_eval", reason="needs the extra harness")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    task = find_task("gsm8k")
    assert task.grade is not None
    docs = read_documents(task, SourceOverride(local("math/gsm8k_test")), num_fewshot=0, limit=300).docs
    outcomes: set[tuple[str, float]] = set()
    for doc in docs:
        for text in _planted(doc["answer"]):
            found = task.grade(doc, text)
            for metric, kind in (("exact_match", strict), ("exact_match_flexible", flexible)):
                said = next(iter(kind.apply([[text]], [{}])))
                score = exact_match_hf_evaluate(
                    predictions=said,
                    references=[doc["answer"]],
                    ignore_case=True,
                    regexes_to_ignore=[",", r"\$", r"(?s).*#### ", r"\.$"],
                )
                assert found[metric] == score["exact_match"], (metric, text)
                outcomes.add((metric, found[metric]))
    assert len(outcomes) == 4  # right and wrong in both


def _planted(answer: str) -> list[str]:
    """Return a right answer and what models make of it."""
    worked, _, number = answer.rpartition("#### ")
    return [
        answer,
        f" {answer}\n\nQuestion",
        f"{worked}The answer is {number}.",
        f"{worked}#### ${number}",
        f"{worked}#### {number}.00",
        f"{worked}#### {number}1",
        f"{worked}####{number}",
        f"#### {number} apples, not 3",
        re.sub(r"\d", "9", answer),
        f"{worked}#### {int(number.replace(',', '')):,}",
        f"so -{number}",
        "I do not know",
        f"\\boxed{{{number}}}",
    ]


def local(name: str) -> str:
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/{name}.jsonl.gz")
    return str(path)


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("arc_easy", "commonsense/arc_easy_test", 2376),
        ("arc_challenge", "commonsense/arc_challenge_test", 1172),
        ("openbookqa", "commonsense/openbookqa_test", 500),
        ("piqa", "commonsense/piqa_test", 1838),
        ("winogrande", "commonsense/winogrande_test", 1267),
        ("hellaswag", "commonsense/hellaswag_val1000", 1000),
        ("boolq", "commonsense/boolq_test", 3270),
        ("boolq", "superglue/boolq_validation", 3270),
        ("gsm8k", "math/singleeq_test", 508),
        ("glue/rte", "glue/rte_validation", 277),
        ("glue/sst2", "glue/sst2_dev", 872),
        ("mmlu", "mmlu/validation", 1531),
    ],
)
def test_real_files_are_read_whole(name: str, file: str, count: int) -> None:
    found = read_documents(find_task(name), SourceOverride(local(file)), num_fewshot=0)
    assert len(found.docs) == len(set(found.ids)) == count


def numbers(count: int) -> list[Mapping[str, Any]]:
    return [{"question": f"{index}?", "answer": f"#### {index}"} for index in range(count)]


def test_random_shots_do_not_depend_on_the_limit(tmp_path: Path) -> None:
    source = SourceOverride(write(tmp_path / "test.jsonl", numbers(9)), write(tmp_path / "shots.jsonl", numbers(40)))
    task = find_task("gsm8k")
    whole, first = read_documents(task, source), read_documents(task, source, limit=4)
    assert whole.shots[:4] == first.shots
    assert (len(first.docs), {len(shots) for shots in first.shots}) == (4, {5})
    assert whole.shots[0] != whole.shots[1]
    assert whole.digest != first.digest


def test_a_document_is_never_its_own_shot(tmp_path: Path) -> None:
    path = write(tmp_path / "both.jsonl", numbers(7))
    found = read_documents(find_task("gsm8k"), SourceOverride(path, path), num_fewshot=6)
    assert all(doc not in shots for doc, shots in zip(found.docs, found.shots, strict=True))


def test_mmlu_takes_shots_and_counts_by_subject(tmp_path: Path) -> None:
    def rows(start: int) -> list[Mapping[str, Any]]:
        return [
            {"subject": subject, "question": f"{subject} {start + index}", "choices": list("wxyz"), "answer": "A"}
            for index in range(6)
            for subject in ("anatomy", "virology")
        ]

    write(tmp_path / "test.jsonl", rows(0))
    write(tmp_path / "dev.jsonl", rows(100))
    write(tmp_path / "validation.jsonl", rows(200))
    found = read_documents(find_task("mmlu"), SourceOverride(str(tmp_path)), limit=2)
    assert found.ids == ("anatomy/0", "virology/0", "anatomy/1", "virology/1")
    assert [shot["question"] for shot in found.shots[1]] == [f"virology {100 + index}" for index in range(5)]
    one = read_documents(find_task("mmlu/virology"), SourceOverride(str(tmp_path)))
    assert one.ids == tuple(f"virology/{index}" for index in range(6))


def test_folders_of_splits_and_of_configurations(tmp_path: Path) -> None:
    inner = tmp_path / "main"
    inner.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in numbers(6)).encode()
    (inner / "test-00000-of-00001.jsonl.gz").write_bytes(gzip.compress(text))
    write(inner / "train.jsonl", numbers(9))
    found = read_documents(find_task("gsm8k"), SourceOverride(str(tmp_path)))
    assert (len(found.docs), found.num_fewshot) == (6, 5)
    assert override_for("mmlu/anatomy", {"mmlu": SourceOverride("x")}) == SourceOverride("x")


def test_the_digest_knows_documents_and_not_places(tmp_path: Path) -> None:
    task = find_task("gsm8k")
    digests = []
    for name, rows in (("a", numbers(3)), ("b", numbers(3)), ("c", numbers(4)[1:])):
        place = SourceOverride(write(tmp_path / f"{name}.jsonl", rows))
        digests.append(task_record(task, read_documents(task, place, num_fewshot=0), None)["digest"])
    assert digests[0] == digests[1] != digests[2]
    assert split_name("gsm8k", num_fewshot=None, limit=None) == "gsm8k"


BAD_ROWS: list[tuple[str, Mapping[str, Any], str]] = [
    ("gsm8k", {"question": "?"}, "E-DAT-004"),
    ("arc_easy", {"question": "?", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "Z"}, "E-DAT-005"),
    ("arc_easy", adapters("?", "Answer1: a Answer3: b", "answer1"), "E-DAT-005"),
    ("arc_easy", adapters("?", "Answer1: a Answer2: b", "true"), "E-DAT-005"),
    ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": -1}, "E-DAT-005"),
    ("hellaswag", {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": ""}, "E-DAT-005"),
    ("winogrande", {"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"}, "E-DAT-005"),
    ("glue/mrpc", {"sentence1": "a", "sentence2": "b", "label": -1}, "E-DAT-005"),
    ("boolq", {"passage": "p", "question": "q", "label": "maybe"}, "E-DAT-005"),
    ("mmlu", {"subject": "anatomy", "question": "q", "choices": ["a", "b"], "answer": "A"}, "E-DAT-005"),
    ("perplexity", {"text": 3}, "E-DAT-005"),
    ("rouge", {"prompt": "p", "reference": ""}, "E-DAT-005"),
]


@pytest.mark.parametrize(("name", "row", "code"), BAD_ROWS)
def test_bad_rows_are_named(name: str, row: Mapping[str, Any], code: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError) as caught:
        read_documents(find_task(name), SourceOverride(path), num_fewshot=0)
    assert (caught.value.code, caught.value.where) == (code, f"{path}:1")


def test_bad_sources_are_named(tmp_path: Path) -> None:
    task = find_task("gsm8k")
    (tmp_path / "empty.jsonl").write_text("")
    write(tmp_path / "other.jsonl", [])
    path = write(tmp_path / "rows.jsonl", numbers(3))
    for place, code in (("missing.jsonl", "E-DAT-001"), ("empty.jsonl", "E-DAT-001"), ("", "E-DAT-017")):
        with pytest.raises(DataError) as caught:
            read_documents(task, SourceOverride(str(tmp_path / place)))
        assert caught.value.code == code
    with pytest.raises(DataError, match=r"gsm8k:fewshot=PATH.*--num-fewshot 0"):
        read_documents(task, SourceOverride(path))
    with pytest.raises(DataError, match="3 documents to take 5 shots from"):
        read_documents(task, SourceOverride(path, write(tmp_path / "shots.jsonl", numbers(3))))
    with pytest.raises(DataError, match="no source"):
        read_documents(find_task("perplexity"))
    rows = [{"subject": "anatomy", "question": "q", "choices": list("abcd"), "answer": "A"}]
    subjects = SourceOverride(write(tmp_path / "subjects.jsonl", rows))
    with pytest.raises(DataError, match="no document for task mmlu/virology"):
        read_documents(find_task("mmlu/virology"), subjects, num_fewshot=0)


def test_without_a_network_a_local_copy_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subspace.data.sources.hub._reachable", lambda: False)
    with pytest.raises(DataError, match=r"E-DAT-017 task arc_easy: .*--source arc_easy=PATH"):
        read_documents(find_task("arc_easy"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gms8k", "Did you mean 'gsm8k'"),
        ("mmlu/anatomi", "Did you mean 'mmlu/anatomy'"),
        ("glue/mrcp", "Did you mean 'glue/mrpc'"),
        ("glue", "one of glue/mrpc"),
        ("gsm8k/x", "has no parts"),
    ],
)
def test_unknown_tasks_are_named_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as caught:
        find_task(name)
    assert caught.value.code == "E-EVL-001"


def test_the_page_lists_exactly_the_tasks() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = page.partition("<!-- tasks -->")[2].partition("<!-- end of tasks -->")[0]
    listed = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    families = {"mmlu": find_task("mmlu"), **{f"glue/{part}": find_task(f"glue/{part}") for part in PARTS}}
    wanted = {name: families.get(name) or find_task(name) for name in task_names() if name != "glue"} | families
    assert listed.keys() == wanted.keys()
    for name, task in wanted.items():
        cells = [cell.strip() for cell in listed[name].strip("|").split("|")]
        assert cells[1:5] == [
            task.kind.replace("_", " "),
            ", ".join(f"`{metric}`" for metric in task.metrics),
            str(task.num_fewshot),
            f"`{task.source.hub}` {task.source.split}" if task.source.hub else "a file of yours",
        ], name


def test_the_example_of_the_page_is_a_task() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    code = page.partition("## A new task")[2].partition("```python")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    task = names["TASK"]
    row = {"premise": "He fell.", "choice1": "He slept.", "choice2": "Ice lay there.", "question": "cause", "label": 1}
    doc = task.to_doc(row, "row")
    assert task.prompt(doc) == "He fell because"
    assert (task.target(doc), task.choices(doc)) == ("ice lay there.", ["he slept.", "ice lay there."])


def test_tasks_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from subspace.evaluation.tasks import find_task, task_names\n"
        "import subspace.evaluation.tasks.documents, subspace.evaluation.tasks.record\n"
        "[find_task(name) for name in task_names() if name != 'glue']; find_task('glue/mrpc')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
