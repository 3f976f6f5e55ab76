"""Programs that a model wrote, run where they can do no harm and cannot grade themselves (docs/code-execution.md)."""
