"""The acts of one run: read data, plan, open the folder, load, attach, restore, train, export, score, seal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subspace.core.errors import ConfigError, StoppedError
from subspace.evaluation.loss import evaluate_loss
from subspace.evaluation.score import require_scorable, score
from subspace.methods.base import Method
from subspace.models.load import fingerprint, resolve
from subspace.pipeline.build import (
    RunData,
    attach_method,
    batch_reader,
    load_base,
    load_data,
    new_accelerator,
    pick_device,
)
from subspace.pipeline.card import model_card
from subspace.pipeline.export import export_result
from subspace.pipeline.planning import make_plan
from subspace.pipeline.results import RunResult
from subspace.pipeline.run_config import RunConfig
from subspace.pipeline.snapshots import Snapshots, find_checkpoint
from subspace.plan.plan import Plan
from subspace.runs.completeness import require_identity
from subspace.runs.log import read_log
from subspace.runs.store import RunFolder
from subspace.training.hooks import Listener
from subspace.training.loop import Loop
from subspace.training.monitors import MachineMonitor, StepClock
from subspace.training.schedule import Schedule, num_total_steps
from subspace.training.signals import StopFlag
from subspace.training.state import Progress
from subspace.training.trackers import TrackerFeed

__all__ = ["Execution"]


class Execution:
    """One attempt at a run; `run` may be called once."""

    def __init__(self, config: RunConfig, listeners: tuple[Listener, ...], profile: bool) -> None:
        self.clock = StepClock()
        self.config, self.listeners, self.profile = config, (self.clock, *listeners), profile
        self.method: Method = config.new_method()
        self.device = pick_device(config)

    def run(self, resume: bool) -> RunResult:
        """Do every act; leave a sealed folder, or a resumable one behind an error."""
        self._phase("data")
        data = load_data(self.config)
        if data.validation is None and self.config.training.eval_steps is not None:
            raise ConfigError(
                "E-CFG-014",
                where="training.eval_steps",
                found="there are no validation rows to evaluate on",
                action="Set data.validation or data.validation_fraction.",
            )
        if data.validation is not None:
            require_scorable(data.validation.rows, self.config.evaluation, self.config.model.task)
        for note in data.notes:
            self._note(note)
        total_steps = num_total_steps(self.config.training, data.num_batches)
        num_labels = len(data.labels) if data.labels else None
        self._phase("plan")
        plan = make_plan(self.config, num_labels=num_labels, total_steps=total_steps, method=self.method)
        identity = {
            "recipe": self.config.digest(),
            "base_model": fingerprint(resolve(self.config.model)),
            "data": data.fingerprint,
        }
        with self._open(resume, plan, identity, data) as folder, StopFlag() as stop:
            return self._inside(folder, stop, resume, plan, data, total_steps, identity)

    def _open(self, resume: bool, plan: Plan, identity: dict[str, str], data: RunData) -> RunFolder:
        path = Path(self.config.training.output_dir)
        facts = {
            "seed": self.config.training.seed,
            "device": self.device,
            "digests": identity,
            "labels": data.labels,
            "format": data.train.report.format,
            "data": [data.train.report.to_json(), *([data.validation.report.to_json()] if data.validation else [])],
        }
        if resume:
            return RunFolder.resume(path, facts=facts)
        return RunFolder.create(path, config_yaml=self.config.to_yaml(), plan=plan.to_json(), facts=facts)

    def _inside(
        self,
        folder: RunFolder,
        stop: StopFlag,
        resume: bool,
        plan: Plan,
        data: RunData,
        total_steps: int,
        identity: dict[str, str],
    ) -> RunResult:
        """Prepare, train and finish; a new run that fails before its first step leaves no folder behind."""
        loop = None
        try:
            snapshots, loop = self._prepare(folder, plan, data, total_steps, identity)
            self._train(loop, stop, folder)
        except StoppedError:
            raise
        except Exception:
            if not resume and (loop is None or loop.progress.step == 0):
                folder.discard()
            raise
        if self.config.training.load_best_at_end:
            snapshots.load_best(loop.progress)
        return self._finish(folder, plan, data, snapshots.model, loop.monitor, loop.progress)

    def _prepare(
        self, folder: RunFolder, plan: Plan, data: RunData, total_steps: int, identity: dict[str, str]
    ) -> tuple[Snapshots, Loop]:
        """Return what is trained, where it was or from its beginning."""
        own = {"identity": folder.manifest()["facts"]["digests"]}
        require_identity(own, identity, str(folder.layout.folder))
        found, notes = find_checkpoint(folder, identity)
        for note in notes:
            self._note(note)
        if found:
            torch.set_num_threads(int(found.state["num_threads"]))
        accelerator = new_accelerator(self.config, self.device)
        monitor = MachineMonitor(torch.device(self.device).type)
        model = self._model(plan, data, total_steps, restoring=found is not None)
        monitor.note_loaded()
        optimizer = self.method.optimizer(model, self.config.optimizer_settings())
        schedule = Schedule(self.config.training, optimizer, total_steps)
        snapshots = Snapshots(
            folder=folder,
            identity=identity,
            model=model,
            method=self.method,
            optimizer=optimizer,
            scaler=accelerator.scaler,
            keep=self.config.training.save_total_limit,
        )
        if found:
            progress = snapshots.restore(found)
            monitor.continue_from(_seconds_in(folder))
        else:
            folder.log.truncate(0)
            progress = Progress()
            self._log_start(folder, plan, monitor)
        return snapshots, self._loop(snapshots, schedule, accelerator, monitor, data, total_steps, progress)

    def _model(self, plan: Plan, data: RunData, total_steps: int, *, restoring: bool) -> nn.Module:
        self._phase("model")
        base = load_base(self.config, data.labels, self.device)
        self._phase("attach")
        return attach_method(
            self.config,
            self.method,
            plan,
            base,
            total_steps=total_steps,
            batches=batch_reader(data, self.device),
            restoring=restoring,
        )

    def _loop(
        self,
        snapshots: Snapshots,
        schedule: Schedule,
        accelerator: Any,
        monitor: MachineMonitor,
        data: RunData,
        total_steps: int,
        progress: Progress,
    ) -> Loop:
        training = self.config.training
        scaled = accelerator.scaler is not None
        model = snapshots.model
        return Loop(
            model=accelerator.prepare_model(model) if training.mixed_precision != "no" else model,
            method=self.method,
            optimizer=accelerator.prepare_optimizer(snapshots.optimizer) if scaled else snapshots.optimizer,
            schedule=schedule,
            accelerator=accelerator,
            config=training,
            task=self.config.model.task,
            total_steps=total_steps,
            num_batches=data.num_batches,
            batch=data.batch,
            log=snapshots.folder.log,
            monitor=monitor,
            save=snapshots.save,
            keep_best=snapshots.keep_best if training.load_best_at_end else None,
            evaluate=self._evaluator(model, data),
            listeners=self.listeners,
            progress=progress,
        )

    def _evaluator(self, model: nn.Module, data: RunData) -> Callable[[], dict[str, float]] | None:
        if data.validation is None:
            return None
        task, chunk = self.config.model.task, self.config.training.loss_chunk_tokens

        def evaluate() -> dict[str, float]:
            batches = data.validation_batches()
            loss, count = evaluate_loss(model, batches, task=task, device=self.device, chunk_tokens=chunk)
            return {"loss": loss, "num_targets": count}

        return evaluate

    def _train(self, loop: Loop, stop: StopFlag, folder: RunFolder) -> None:
        """Run the loop; a signal ends in a StoppedError."""
        self._phase("train")
        names = self.config.training.report_to
        trackers = TrackerFeed(names, folder.layout.folder.name, folder.layout.trackers, self.config.to_tree())
        loop.listeners = (*loop.listeners, trackers)
        try:
            with self._profiler(loop, folder):
                result = loop.run(stop)
        finally:
            trackers.close()
            if trackers.num_dropped or trackers.failure:
                self._note(f"trackers: {trackers.num_dropped} records dropped. {trackers.failure or ''}")
        if not result.finished:
            name = stop.received.name if stop.received else "a signal"
            error = StoppedError(
                "E-RUN-075",
                where=str(folder.layout.folder),
                found=f"stopped by {name} at step {loop.progress.step} of {loop.total_steps}; saved",
                action=f"Go on with `subspace resume {folder.layout.folder}`.",
            )
            error.exit_status = result.exit_status  # type: ignore[misc]  # the instance tells TERM from INT
            raise error

    @contextlib.contextmanager
    def _profiler(self, loop: Loop, folder: RunFolder) -> Iterator[None]:
        """Trace ten steps after two of warm-up, if asked; a shorter run has a shorter trace."""
        if not self.profile:
            yield
            return
        from torch import profiler

        target = folder.layout.profile
        target.mkdir(exist_ok=True)
        steps = max(loop.total_steps - loop.progress.step, 1)
        warmup = min(2, steps - 1)
        with profiler.profile(
            schedule=profiler.schedule(wait=0, warmup=warmup, active=min(10, steps - warmup), repeat=1),
            on_trace_ready=lambda trace: trace.export_chrome_trace(str(target / "trace.json")),
            profile_memory=True,
            record_shapes=True,
        ) as active:
            loop.after_step = lambda step: active.step()
            yield
        self._note(f"profile: open {target / 'trace.json'} in https://ui.perfetto.dev")

    def _finish(
        self,
        folder: RunFolder,
        plan: Plan,
        data: RunData,
        model: nn.Module,
        monitor: MachineMonitor,
        progress: Progress,
    ) -> RunResult:
        """Export, score, describe and seal."""
        seconds, peak = monitor.elapsed_seconds, monitor.peak_bytes() - monitor.baseline_bytes
        self._phase("export")
        export_result(self.config, self.method, model, data.tokenizer, folder.layout)
        metrics = self._scores(folder, data, model)
        summary = {
            "metrics": metrics,
            "planned_steps": plan.batch.steps,
            "steps": progress.step,
            "skipped_steps": progress.num_skipped,
            "stopped_early": progress.stopped_early,
            "best_step": progress.best_step,
            "best_loss": progress.best_loss,
            "num_tokens": progress.num_tokens,
            "trained_parameters": plan.trained_parameters,
            "num_parameters": plan.num_parameters,
            "planned_peak_bytes": plan.peak_bytes,
            "loaded_bytes": monitor.loaded_bytes,
            "measured_peak_bytes": peak,
            "forecast_seconds": self.clock.forecast_seconds(),
            "seconds": round(seconds, 3),
            "seconds_per_step": round(seconds / max(progress.step, 1), 6),
        }
        folder.log.write("run_end", step=progress.step, outcome="finished", machine=monitor.snapshot())
        folder.layout.card.write_text(model_card(self.config, summary), encoding="utf-8")
        folder.finish(summary)
        return RunResult(folder.layout.folder, metrics, summary)

    def _scores(self, folder: RunFolder, data: RunData, model: nn.Module) -> dict[str, float]:
        """Score the validation rows, if there are any, and keep what the model answered."""
        metrics: dict[str, float] = {}
        if data.validation is not None:
            self._phase("evaluate")
            scores = score(
                model,
                data.tokenizer,
                data.validation.rows,
                self.config.evaluation,
                task=self.config.model.task,
                device=self.device,
                progress=self._told("evaluate"),
                chunk_tokens=self.config.training.loss_chunk_tokens,
            )
            metrics = dict(scores.metrics)
            folder.write_predictions("validation", scores.items)
        folder.write_metrics({"validation": metrics})
        return metrics

    def _log_start(self, folder: RunFolder, plan: Plan, monitor: MachineMonitor) -> None:
        folder.log.write(
            "run_start",
            step=0,
            method=plan.method,
            model=plan.model,
            task=plan.task,
            total_steps=plan.batch.steps,
            num_trained_parameters=plan.trained_parameters,
            machine=monitor.snapshot(),
        )

    def _told(self, name: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            for listener in self.listeners:
                listener.on_progress(name, done, total)

        return tell

    def _phase(self, name: str) -> None:
        for listener in self.listeners:
            listener.on_phase(name)

    def _note(self, text: str) -> None:
        for listener in self.listeners:
            listener.on_note(text)


def _seconds_in(folder: RunFolder) -> float:
    """Return the seconds of training that the kept records tell of."""
    records = (record for record in reversed(read_log(folder.layout.log)[0]) if record.get("event") == "step")
    return next((float(record["machine"]["elapsed_seconds"]) for record in records), 0.0)
