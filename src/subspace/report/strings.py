"""Every word that a picture or page shows, by language; {fields} are filled in where they are used."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["STRINGS", "words"]

STRINGS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "language": "en",
        # Charts
        "train_loss": "Training loss",
        "validation_loss": "Validation loss",
        "steps_axis": "optimizer steps",
        "smoothed_note": "faint: as logged, strong: smoothed",
        "before": "before training",
        "after": "after training",
        "planned": "planned",
        "measured": "measured",
        # The subspace
        "subspace": "The subspace",
        "subspace_note": (
            "Bases are found anew while a run trains. A line is the mean over the projected weights, each as of its "
            "latest refresh."
        ),
        "figure_captured_energy": "Captured energy",
        "about_captured_energy": "share of the squared gradient that lies in the new subspace",
        "figure_effective_rank": "Effective rank",
        "about_effective_rank": "number of directions that the projected gradient really uses",
        "figure_overlap": "Overlap with the last basis",
        "about_overlap": "100 %: the subspace stayed as it was",
        "figure_largest_angle_degrees": "Largest angle to the last basis",
        "about_largest_angle_degrees": "90°: at least one direction is wholly new",
        "figure_drift": "Drift from the first basis",
        "about_drift": "0 %: still the first subspace; watched weights only",
        "figure_update_norm": "Norm of an update",
        "about_update_norm": "of one step, right after a refresh; watched weights only",
        "figure_refresh_seconds": "Time of a refresh",
        "about_refresh_seconds": "what a step waited",
        "figure_refresh_seconds_so_far": "Time of all refreshes so far",
        "about_refresh_seconds_so_far": "what new bases have cost since the run began",
        "heat": "Captured energy, weight by weight",
        "heat_note": "Share of the squared gradient in the subspace, in percent; mean over the refreshes of a run.",
        "heat_scale": "{title}: {low} (light) to {high} (dark)",
        "heat_mean": "mean {value}",
        "layer": "layer",
        # Head
        "kicker": "subspace report",
        "title_one": "{run}",
        "title_many": "{count} runs compared",
        "lead_best": "{label} scores {score} {metric}, the best of {count}.",
        "lead_one": "{score} {metric} after training.",
        "lead_gain": "Before training it was {before}.",
        "lead_mean": "This is the mean of {count} seeds.",
        "lead_loss": "{label} ends at a validation loss of {score}, the lowest of {count}.",
        "lead_unscored": "No scores yet; what was logged is shown.",
        "lead_seeds": "Each ran with one seed: small differences may be chance.",
        "facts_model": "Model",
        "facts_data": "Data",
        "facts_seeds": "Seeds",
        "facts_steps": "Steps",
        # Sections
        "scores": "Scores",
        "scores_note": "{metric} on the held-out rows, {direction}.",
        "higher_better": "higher is better",
        "lower_better": "lower is better",
        "curves": "Loss curves",
        "cost": "Cost",
        "cost_note": "Peak memory of training: the bar was measured, the mark was planned before anything was loaded.",
        "runs": "Every run",
        "notes": "What is missing",
        "files": "Files",
        "file_tidy": "every logged number, one per row",
        "file_summary": "the table above",
        "file_curves": "the curves as a picture",
        "file_subspace": "what the subspaces did, as a picture",
        "file_energy": "captured energy weight by weight, as a picture",
        "file_refreshes": "every refresh, weight by weight",
        # Table
        "run": "Run",
        "method": "Method",
        "seed": "Seed",
        "score_before": "Before",
        "score_after": "After",
        "trained": "Trained",
        "memory": "Peak memory",
        "time": "Time",
        "state": "State",
        "unknown": "unknown",
        "several": "{count} different",
        "footer": "Made by subspace {version} from the run folders alone; it can be made again at any time.",
        # States
        "finished": "finished",
        "running": "running",
        "stopped": "stopped",
        "failed": "failed",
        "died": "died",
        "unfinished": "unfinished",
        # Metrics
        "exact_match": "exact match",
        "exact_match_normalized": "exact match, normalized",
        "accuracy": "accuracy",
        "f1": "F1",
        "precision": "precision",
        "recall": "recall",
        "rouge1": "ROUGE-1",
        "rouge2": "ROUGE-2",
        "rougeL": "ROUGE-L",
        "loss": "loss",
        "perplexity": "perplexity",
    },
}


def words(language: str) -> Mapping[str, str]:
    """Return the words of a language.

    Raises:
        KeyError: If there is none of that name.
    """
    return STRINGS[language]
