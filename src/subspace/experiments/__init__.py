"""Methods x tasks x seeds x models -> jobs, and the queue that runs them."""
