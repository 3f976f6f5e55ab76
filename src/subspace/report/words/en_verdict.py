"""English: the verdict and what the reader must know."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["VERDICT"]

VERDICT: Mapping[str, str] = {
    "language": "en",
    "language_name": "English",
    "full_stop": ".",
    "between_sentences": " ",
    "list_comma": ", ",
    "list_and": " and ",
    "list_more": "{count} more",
    "span": "{low} to {high}",
    "versus": "{first} – {second}",
    "points": "{value} points",
    "unknown": "unknown",
    "several": "{count} different",
    "seeds_one": "{count} seed",
    "seeds_many": "{count} seeds",
    "seeds_and_items": "{seeds} × {items} items",
    # Headlines
    "page_title": "subspace: {title}",
    "kicker": "subspace · comparison",
    "title_best": "{arm} is best.",
    "title_shared": "{arms} share the lead.",
    "title_shared_by_many": "{arm} leads, with {count} others too close to call.",
    "title_none": "No method stands out.",
    "title_best_on_all": "{arm} is best {tasks}.",
    "title_leads_on_all": "{arms} leads or shares the lead {tasks}.",
    "title_lead_on_all": "{arms} share the lead {tasks}.",
    "title_many_lead": "{count} of {arms} methods share the lead {tasks}.",
    "tasks_two": "on both tasks",
    "tasks_many": "on all {count} tasks",
    "title_no_leader": "No method leads {tasks}.",
    "title_beats": "{arms} beats {reference}.",
    "title_beat": "{arms} beat {reference}.",
    "title_unbeaten": "Nothing beats {reference}.",
    "title_no_difference": "Nothing is told apart from {reference}.",
    "title_bare": "{arm} scores best, but nothing tells whether by chance.",
    "title_run": "{run}",
    "title_scored": "{count} runs, too few of a kind to tell differences from chance.",
    "title_runs": "{count} runs, nothing to compare by yet.",
    # The verdict
    "line_leads": "Best",
    "line_reference": "Reference",
    "line_ahead": "Ahead of it",
    "line_level": "Not told apart from it",
    "line_level_reference": "Not told apart from it",
    "line_behind": "Behind it",
    "line_perhaps_ahead": "Perhaps ahead of it",
    "line_perhaps_behind": "Perhaps behind it",
    "line_power": "To tell more",
    "line_scores": "Scores",
    "score_with_interval": "{arm} with {score} {metric}, interval {interval} ({data}).",
    "score_alone": "{arm} with {score} {metric} ({data}).",
    "gap": "{arm} by {difference} [{interval}]",
    "sentence_ahead": "Ahead of it: {gaps}.",
    "sentence_level": "Not told apart from it: {arms}.",
    "if_shared": "{gaps}, if seeds move all methods by as much.",
    "sentence_perhaps_ahead": "Perhaps ahead of it: {gaps}, if seeds move all methods by as much.",
    "sentence_perhaps_behind": "Perhaps behind it: {gaps}, if seeds move all methods by as much.",
    "sentence_behind": "Behind it: {gaps}.",
    "power_unknown": "Nothing was repeated, so nothing tells how large the noise is. Run at least three seeds.",
    "power_detectable": (
        "With {data}, a true difference of {difference} is found in {target} of all cases ({alone} if it were "
        "the only comparison)."
    ),
    "power_alone": (
        "With {data}, no difference is sure to be found in {target} of all cases among so many comparisons; {alone} "
        "would be if it were the only one."
    ),
    "power_none": "With {data}, no difference is sure to be found in {target} of all cases.",
    "power_then": "{first} {then}",
    "one_point": "a difference of one point",
    "one_percent": "a difference of {value} (1 %)",
    "power_both": "To see {point}, train {seeds} seeds on these items, or score {items} items with these seeds.",
    "power_seeds": "To see {point}, train {seeds} seeds; more items alone do not suffice.",
    "power_items": "To see {point}, score {items} items; more seeds alone do not suffice.",
    "power_never": "Neither more seeds nor more items alone would show {point}.",
    "bare_best": "{arm} has {score} {metric}, the best of {count}.",
    "bare_one": "{arm} has {score} {metric} after training.",
    "before_was": "Before training: {before}.",
    "unscored": "No scores yet; what was logged is shown.",
    "unscored_loss": "{arm} ends at a validation loss of {loss}, the lowest of {count}.",
    "facts_model": "Model",
    "facts_data": "Data",
    "facts_arms": "Methods",
    "facts_runs": "Runs",
    "facts_seeds": "Seeds",
    "facts_steps": "Steps",
    "facts_budget": "Equal budget",
    "budget_steps": "{value} steps",
    "budget_tokens": "{value} tokens",
    "budget_seconds": "{value} s",
    # What the reader must know
    "remark_on": "{task}: {remark}",
    "remark_other": "Remark of the statistics: {code}.",
    "remark_single_scores": "One score each, and no answers item by item: small differences may be chance.",
    "remark_seed_repeated": "{arm} has several runs of seed {seed}; {run} counts.",
    "remark_no_items": "Judged by one score a run: {run} keeps no {metric} item by item.",
    "remark_items_differ_from_score": "Judged by one score a run: the items of {run} do not add up to its {metric}.",
    "remark_items_differ": (
        "Judged by one score a run: {items} items of {run} ask or expect something else than those of the others."
    ),
    "remark_items_missing": "{runs} runs lack some of the {items} items; each pair is judged on what both have.",
    "remark_arms_left_out": "Of {arms} methods and settings the {judged} with the best means are judged together.",
    "remark_mixed_devices": (
        "Runs were made on several kinds of devices ({devices}): their times and memory are not comparable."
    ),
    "remark_unequal_steps": "Unequal budgets: runs were trained for {low} to {high} steps.",
    "remark_steps_by_seconds": (
        "The budget was {seconds} seconds of training: at the pace measured of each method beforehand they buy "
        "{low} to {high} steps."
    ),
    "remark_seconds_missed": (
        "Runs took {low} to {high} seconds and not the {seconds} of the budget: the machine was not as fast, or not as "
        "free, as when the pace was measured. A verdict on equal time does not follow."
    ),
    "remark_unequal_tokens": "Unequal budgets: runs were trained on {low} to {high} tokens.",
    "remark_unequal_models": (
        "Runs of different models or data are shown as tasks of their own and never ranked together."
    ),
    "remark_reference_missing": "{reference} has no scores here.",
    "remark_no_common_items": "{first} and {second} share no items and are not compared.",
    "remark_unequal_items": (
        "Not all methods have all items; each pair is judged on what both have ({common} in common to all)."
    ),
    "remark_unequal_seeds": "Seeds differ in number: {seeds} has {fewest}, others up to {most}.",
    "remark_unpaired_seeds": "Compared without pairing, since their seeds differ: {pairs}.",
    "remark_one_seed": (
        "One seed each: decisions speak of these trained models on new items. Another seed may change them; run "
        "at least three."
    ),
    "remark_not_repeated": "One score each: nothing tells a difference from chance.",
    "remark_few_seeds": (
        "{seeds} seeds: how much seeds differ is itself a guess, so intervals are wide (up to {t_factor} "
        "standard errors instead of {normal_factor}). Small differences cannot be decided; five seeds are a "
        "sound minimum."
    ),
    "remark_seeds_identical": "All seeds gave the same answers: {arms}. They may be copies of one run.",
    "remark_arms_identical": "The same scores throughout: {pairs}.",
    "remark_constant_difference": "A constant difference leaves no variation to judge by: {pairs}.",
    "remark_unequal_noise": (
        "Seeds move {arm} more than the others ({share} of all seed noise, {even} if all were alike), so no "
        "noise is shared."
    ),
    "remark_few_discordant": (
        "Fewer than ten items separate {pairs}: a decision on them hangs on a handful of answers."
    ),
    "remark_cannot_decide": (
        "This comparison cannot decide: a true difference as large as the largest seen ({largest}) would be "
        "found in only {power} of all cases."
    ),
    "remark_multiplicity": (
        "Looked at alone, these would count as different: {pairs}. Among {hypotheses} comparisons that may be chance."
    ),
    "remark_blocks_cannot_decide": (
        "Too few tasks × seeds ({blocks}) for a signed-rank test over all tasks: its smallest p is {min_p}, and "
        "{needed} is needed."
    ),
}
