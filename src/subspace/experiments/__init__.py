"""Methods x tasks x models x seeds -> jobs, run by worker processes that may be killed at any moment."""
