"""`subspace plan`: what a recipe will train and cost."""

from __future__ import annotations

from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]


def verb(
    given: options.Given = None,
    config: options.ConfigPath = None,
    override: options.Override = None,
    model: options.Model = None,
    data: options.Data = None,
    method: options.MethodName = None,
    seed: options.Seed = None,
    platform: options.Platform = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    vram: Annotated[
        str | None, typer.Option("--vram", metavar="SIZE", help="Propose what makes the run fit, such as 4GB.")
    ] = None,
    probe: Annotated[int, typer.Option("--probe", min=0, help="Run that many real steps and extrapolate.")] = 0,
    debug: options.Debug = False,
) -> None:
    """Show which module gets which rank, what is trained, and what it costs, before anything is loaded."""
    run_config, notes, document = options.load_run_config(
        given, config=config, override=override, model=model, data=data, method=method, seed=seed, platform=platform
    )
    from subspace.cli.console import show_notes
    from subspace.cli.running import probe_run, show_fit, show_plan
    from subspace.core.units import parse_bytes
    from subspace.pipeline.resolve import placed

    show_notes(notes)
    limit = None if vram is None else parse_bytes(vram, where="--vram")
    with placed(document, run_config):
        if limit is not None:
            chosen = {"--config": config, "--model": model, "--data": data, "--method": method}
            words = options.repeated(given, override, chosen, seed=seed, platform=platform)
            show_fit(run_config, limit, words, as_json=json)
            return
        show_plan(run_config, as_json=json)
        if probe:
            probe_run(run_config, probe)
