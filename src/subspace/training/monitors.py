"""Memory and throughput, measured while the loop runs."""

from __future__ import annotations

import contextlib
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from subspace.training.hooks import Listener

__all__ = ["MachineMonitor", "StepClock", "resident_bytes"]

_FORECAST_STEPS = 7

_CLEAR_PEAK = "5"  # written to clear_refs: the kernel forgets the peak resident set


def resident_bytes() -> int:
    """Return the resident set of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


class MachineMonitor:
    """What the machine did since the monitor was made.

    On a CPU memory is the resident set of the process; the peak is the kernel's where it tells (Linux), else the
    largest value seen at a log record. On CUDA it is what torch's allocator holds.
    """

    def __init__(self, device_type: str) -> None:
        self._cuda = device_type == "cuda"
        self._start = time.monotonic()
        self._earlier_seconds = 0.0
        self._tokens = 0
        self._window = (self._start, 0)
        _return_free_memory()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
        self.loaded_bytes: int | None = None
        self._seen_peak = resident_bytes()
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self.baseline_bytes = self._held_bytes()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of training, with those of earlier attempts."""
        return self._earlier_seconds + time.monotonic() - self._start

    def continue_from(self, seconds: float) -> None:
        """Count on from what earlier attempts took for the steps that are kept."""
        self._earlier_seconds = seconds

    def add_tokens(self, count: int) -> None:
        """Count tokens that were trained on."""
        self._tokens += count

    def restart_clock(self) -> None:
        """Leave what went before (loading, attaching) out of times and rates."""
        self._start = time.monotonic()
        self._tokens = 0
        self._window = (self._start, 0)

    def note_loaded(self) -> None:
        """Keep what is held now, above the baseline, as that of the loaded model."""
        self.loaded_bytes = self._held_bytes() - self.baseline_bytes

    def peak_bytes(self) -> int:
        """Return the peak since the monitor was made."""
        if self._cuda:
            import torch

            return int(torch.cuda.max_memory_allocated())
        return max(self._seen_peak, _kernel_peak_bytes(), resident_bytes())

    def _held_bytes(self) -> int:
        if self._cuda:
            import torch

            return int(torch.cuda.memory_allocated())
        return resident_bytes()

    def moment(self) -> dict[str, Any]:
        """Return the fields of a log record that say when it was written."""
        return self._moment(time.monotonic())

    def _moment(self, now: float) -> dict[str, Any]:
        time_of_day = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"time": time_of_day, "elapsed_seconds": round(self._earlier_seconds + now - self._start, 3)}

    def snapshot(self) -> dict[str, Any]:
        """Return the fields of a log record that differ between identical runs."""
        now = time.monotonic()
        since, tokens = self._window
        self._window = (now, self._tokens)
        rss = resident_bytes()
        self._seen_peak = max(self._seen_peak, rss)
        record = self._moment(now) | {
            "tokens_per_second": round((self._tokens - tokens) / max(now - since, 1e-9), 1),
            "rss_bytes": rss,
        }
        if self._cuda:
            import torch

            record |= {
                "allocated_bytes": torch.cuda.memory_allocated(),
                "reserved_bytes": torch.cuda.memory_reserved(),
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
            }
        return record


class StepClock(Listener):
    """The moments at which the steps of an attempt ended."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._num_steps = 0

    def on_start(self, total_steps: int, step: int) -> None:
        self._times = [time.perf_counter()]
        self._num_steps = total_steps - step

    def on_step(self, step: int, loss: float) -> None:
        self._times.append(time.perf_counter())

    def seconds_per_step(self, last: int | None = None) -> float | None:
        """Return the median step, the first two apart (they warm caches and allocators); None before a step.

        Args:
            last: Look at no more than the first `last` steps.
        """
        spans = [after - before for before, after in zip(self._times, self._times[1:], strict=False)][:last]
        return statistics.median(spans[2:] or spans) if spans else None

    def forecast_seconds(self) -> float | None:
        """Return what the first seven steps let one expect of all steps of this attempt."""
        step = self.seconds_per_step(_FORECAST_STEPS)
        return None if step is None else step * self._num_steps


def _return_free_memory() -> None:
    """Give memory that an earlier run freed back to the system, so that it does not count as there before this one."""
    import ctypes
    import gc

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _kernel_peak_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
