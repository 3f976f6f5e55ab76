"""MMLU: questions with four choices from 57 subjects; the model says a letter.

5 shots, the first of the subject's dev split. `mmlu` is all subjects, `mmlu/anatomy` one.

References:
    Hendrycks et al., 2021, Measuring Massive Multitask Language Understanding, arXiv:2009.03300.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.core.errors import ConfigError
from subspace.core.registry import nearest
from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["SUBJECTS", "mmlu"]

LETTERS = "ABCD"
SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip


def mmlu(subject: str | None) -> Task:
    """Return the task of one subject, of all with None.

    Raises:
        ConfigError: E-EVL-001 with the nearest subject.
    """
    if subject is not None and subject not in SUBJECTS:
        close = nearest(subject, SUBJECTS)
        raise ConfigError(
            "E-EVL-001",
            where="--tasks",
            found=f"MMLU has no subject {subject!r}",
            expected=f"one of {', '.join(SUBJECTS)}",
            action=f"Did you mean 'mmlu/{close}'?" if close else "",
        )

    def to_doc(row: Mapping[str, Any]) -> Doc | None:
        found = row["subject"].strip().replace(" ", "_")
        if subject is not None and found != subject:
            return None
        answer, choices = row["answer"], tuple(row["choices"])
        gold = LETTERS.index(answer) if isinstance(answer, str) and answer else int(answer)
        if len(choices) != 4 or not 0 <= gold < 4:
            raise ValueError(f"{len(choices)} choices, answer {answer!r}")
        return {"subject": found, "question": row["question"], "choices": choices, "answer": gold}

    return Task(
        name="mmlu" if subject is None else f"mmlu/{subject}",
        version=1,
        kind="multiple_choice",
        source=Source("cais/mmlu", subject or "all", "test", "dev"),
        layouts=(Layout(("subject", "question", "choices", "answer"), to_doc),),
        metrics=("acc",),
        description=_description,
        question=_question,
        choices=lambda doc: tuple(LETTERS),
        gold=lambda doc: int(doc["answer"]),
        group=lambda doc: str(doc["subject"]),
        num_fewshot=5,
        sampler="first",
    )


def _description(doc: Doc) -> str:
    subject = doc["subject"].replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def _question(doc: Doc) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, doc["choices"], strict=True)]
    return "\n".join([doc["question"].strip(), *lines, "Answer:"])
