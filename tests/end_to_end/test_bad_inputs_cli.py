"""Bad command lines and odd surroundings: rows 54 to 61 of the bad-input matrix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine, signal_at

from subspace.cli.main import VERBS


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], ["no verb", "train, resume, plan", "subspace --help"]),
        (["--debug"], ["--debug"]),
        (["trian"], ["No such command 'trian'", "train", "subspace --help"]),
        (["evalute", "out"], ["No such command 'evalute'", "evaluate"]),
        (["frobnicate"], ["No such command 'frobnicate'"]),
        (["--hlep"], ["No such option: --hlep", "--help"]),
        (["train", "--hlep"], ["No such option: --hlep", "--help", "subspace train --help"]),
        (["plan", "recipe.yaml", "--prboe", "3"], ["No such option: --prboe", "--probe"]),
        (["plan", "recipe.yaml", "--probe", "-1"], ["--probe"]),
        (["plan", "recipe.yaml", "--probe", "many"], ["--probe", "integer"]),
        (["data"], ["Missing command", "subspace data --help"]),
        (["data", "prevew"], ["No such command 'prevew'", "preview"]),
        (["resume"], ["Missing argument", "subspace resume --help"]),
        (["init", "--model", "builtin/tiny-llama"], ["--data"]),
        (["export", "only-one"], ["Missing argument"]),
        (["chat", "builtin/tiny-llama", "--max-new-tokens", "0"], ["--max-new-tokens"]),
    ],
    ids=" ".join,
)
def test_command_line_that_cannot_be_understood(command: list[str], said: list[str], subspace: CommandLine) -> None:
    subspace.recipe()
    told = subspace.refused(*command, status=2, code="E-CLI-001", said=["command line: ", *said])
    assert len(told) < 400
    assert told.count("Did you mean") <= 1


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("training.per_device_train_batch_size=two", "command line:training.per_device_train_batch_size: found"),
        ("=", "command line:"),
        ("=3", "command line:"),
        ("training.=3", "command line:training.: "),
        ("training.seed=", "command line:training.seed: no value"),
        ("training.learning_rate.peak=1", "command line:training.learning_rate.peak: training.learning_rate is"),
        ("training=3", "command line:training: found 3"),
        ("data.labels=[a", "command line:data.labels: not a YAML value"),
        ("training.max_steps=9999999999999999999999.5", "command line:training.max_steps: found"),
    ],
)
@pytest.mark.parametrize("way", ["positional", "option"])
def test_override_that_is_malformed(override: str, place: str, way: str, subspace: CommandLine) -> None:
    given = ["--override", override] if way == "option" else [override]
    subspace.refused("train", subspace.recipe(), *given, status=2, code="E-CLI-002", said=place)


def test_overrides_that_repeat_or_are_none(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    seeds = ["training.seed=1", "training.seed=2"]
    subspace.refused("train", recipe, *seeds, status=2, code="E-CLI-002", said="training.seed: given twice")
    subspace.refused(
        "train", recipe, seeds[0], "--seed", "2", status=2, code="E-CLI-002", said="training.seed: given twice"
    )
    subspace.refused("train", recipe, "seed", status=2, code="E-CLI-002", said="'seed'")
    subspace.refused("train", recipe, "training.sede=1", status=2, code="E-CFG-007", said=["training.sede", "'seed'"])
    subspace.refused("validate", recipe, "training.seed=-1", status=2, code="E-CLI-002", said="training.seed")


def test_override_with_a_tag_or_a_secret(subspace: CommandLine) -> None:
    recipe, secret = subspace.recipe(), "hf_" + "a1B2" * 8
    given = 'data.source=!!python/object/apply:os.system ["touch canary"]'
    subspace.refused("train", recipe, given, status=8, code="E-SEC-001", said="data.source")
    told = subspace.refused("train", recipe, f"model.revision={secret}", status=8, code="E-SEC-002")
    assert secret not in told
    assert not (subspace.folder / "canary").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**32), str(2**64), "abc", "", "1.5", "1e3", "٣"])
def test_seed_that_is_none(seed: str, subspace: CommandLine) -> None:
    told = subspace.refused("train", subspace.recipe(), f"--seed={seed}", status=2, code="E-CLI-003", said="--seed: ")
    assert f"0 to {2**32 - 1}" in told


def test_nothing_is_overwritten_whatever_is_asked(own_run: Path, subspace: CommandLine) -> None:
    recipe = subspace.recipe({"training": {"output_dir": str(own_run)}})
    for more in ([], ["--resume"]):
        told = subspace.refused("train", recipe, "--overwrite", *more, status=2, code="E-CLI-004", said="--overwrite")
        assert "nothing is overwritten" in told


def test_two_recipes(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    subspace.refused("train", recipe, "--config", recipe, status=2, code="E-CLI-004", said="--config: two recipes")


def test_no_recipe_and_no_data(subspace: CommandLine) -> None:
    subspace.refused("train", status=2, code="E-CFG-011", said=["--model", "recipe"])
    subspace.refused("plan", "--model", "builtin/tiny-llama", status=2, code="E-CFG-011", said="--data")


def test_resuming_with_another_recipe(stopped: Path, subspace: CommandLine) -> None:
    changes = {"training": {"output_dir": str(stopped), "max_steps": 4, "save_steps": 2}}
    same = subspace.recipe(changes)
    others = ["training.learning_rate=0.02", "method.rank=8", "training.seed=7"]
    said = ["training.learning_rate is 0.02, not 0.01", "method.rank is 8, not 4"]
    said += ["training.seed is 7, not 42", f"subspace resume {stopped}"]
    subspace.refused("train", same, "--resume", *others, status=2, code="E-CLI-004", said=[f"{stopped}: ", *said])
    subspace("train", same, "--resume", "training.save_total_limit=3")
    told = f"{stopped}: the run is finished"
    subspace.refused("train", same, "--resume", status=2, code="E-CLI-004", said=told)
    subspace.refused("resume", stopped, status=2, code="E-CLI-004", said=told)


def test_resuming_with_another_recipe_before_the_first_checkpoint(subspace: CommandLine) -> None:
    import shutil

    recipe = subspace.recipe()
    with signal_at(1):
        assert subspace.end("train", recipe).status == 75
    shutil.rmtree(subspace.folder / "out" / "checkpoints")
    given = [recipe, "--resume", "training.learning_rate=0.02"]
    subspace.refused("train", *given, status=2, code="E-CLI-004", said="training.learning_rate is 0.02, not 0.01")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["predict", "RUN"], "E-CLI-004", "no text and no --file"),
        (["predict", "RUN", "hello", "--file", "x.txt"], "E-CLI-004", "a text beside --file"),
        (["predict", "RUN", "hello", "--device", "cuda:97"], "E-CFG-019", "--device: requested cuda:97"),
        (["predict", "RUN", "hello", "--device", "banana"], "E-CFG-019", "--device: unknown device 'banana'"),
        (["predict", "", "hello"], "E-CFG-010", "model_name_or_path"),
        (["predict", "RUN", "hello", "--out", "recipe.yaml"], "E-CFG-023", "recipe.yaml exists"),
        (["predict", "RUN", "hello", "--out", "no/out.json"], "E-CFG-023", "no folder no"),
        (["evaluate", "RUN", "training.seed=3"], "E-CLI-004", "training.seed=3"),
        (["evaluate", "RUN", "data.nope=3"], "E-CFG-007", "data.nope"),
        (["evaluate", "RUN", "--name", "../x"], "E-CLI-001", "--name: '../x'"),
        (["evaluate", "RUN", "--device", "mps:3"], "E-CFG-019", "--device"),
        (["evaluate", "RUN", "evaluation.metrics=[accuracy]"], "E-EVL-001", "evaluation.metrics"),
        (["export", "RUN", "recipe.yaml"], "E-CFG-023", "recipe.yaml"),
        (["init", "--model", "m", "--data", "d", "--out", "recipe.yaml"], "E-CFG-023", "recipe.yaml exists"),
        (["init", "--model", "m", "--data", "d", "--out", "no/recipe.yaml"], "E-CFG-023", "no folder no"),
        (["init", "--model", "m", "--data", "d", "--method", "loar", "--out", "new.yaml"], "E-CFG-018", "'lora'"),
        (["migrate", "recipe.yaml"], "E-CFG-022", "not a LLaMA-Factory file"),
        (["migrate", "absent.yaml"], "E-CFG-001", "absent.yaml"),
        (["data", "prepare", "recipe.yaml"], "E-CFG-023", "recipe.yaml exists"),
        (["methods", "loar"], "E-CFG-018", "'lora'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_verb_with_what_it_cannot_use(
    command: list[str], code: str, said: str, finished: Path, subspace: CommandLine
) -> None:
    subspace.recipe()
    given = [str(finished) if word == "RUN" else word for word in command]
    subspace.refused(*given, status=2, code=code, said=said)


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("none.txt", "", "E-DAT-001", "none.txt: the file is empty"),
        ("blank.txt", "\n  \n", "E-DAT-016", "blank.txt: nothing to predict"),
        ("none.json", "[]", "E-DAT-016", "none.json: nothing to predict"),
        ("long.txt", "1 + 1 =\n" + "word " * 2000, "E-DAT-016", "prompt 2: the prompt has "),
        ("gap.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n', "E-DAT-016", "prompt 2: the prompt is empty"),
        ("column.jsonl", '{"prompt": "a"}\n{"promt": "b"}\n', "E-DAT-004", "column.jsonl:2: columns promt"),
        ("torn.jsonl", '{"prompt": "a"}\n{"prompt"\n', "E-DAT-003", "torn.jsonl:2:"),
        ("chat.jsonl", '{"messages": [{"role": "user"}]}\n', "E-DAT-013", "chat.jsonl:1: turn 1"),
        ("absent.txt", None, "E-DAT-001", "absent.txt: no such file"),
    ],
)
def test_file_of_prompts_that_cannot_be_answered(
    name: str, content: str | None, code: str, said: str, finished: Path, subspace: CommandLine
) -> None:
    if content is not None:
        subspace.write(name, content)
    given = ["--file", name, "--out", "answers.json"]
    subspace.refused("predict", finished, *given, status=3, code=code, said=said)


def test_prompt_that_is_empty_or_too_long(finished: Path, subspace: CommandLine) -> None:
    subspace.refused("predict", finished, " ", status=3, code="E-DAT-016", said="the prompt is empty")
    subspace.refused("predict", finished, "word " * 2000, status=3, code="E-DAT-016", said="fewer than the ")


@pytest.mark.parametrize(
    "name", ["a b", 'it\'s "quoted"', "new\nline", "ünï 中文 🦊", "-leading", "a;rm -rf x", "$HOME", "x=y"]
)
def test_odd_names_are_names(name: str, subspace: CommandLine) -> None:
    """A recipe, data and a run folder that are all called this."""
    path = subspace.recipe(name=f"{name}.yaml")
    subspace.write(f"{name}/rows.jsonl", '{"prompt": "1 + 1 =", "completion": " 2"}\n' * 4)
    said = subspace("train", "--data", f"./{name}/rows.jsonl", "--dry-run", "--", path.name)
    assert "lora" in said.out
    folder = json.dumps(name, ensure_ascii=False)
    said = subspace("validate", "--", path.name, f"training.output_dir={folder}", "data.source=" + folder)
    assert said.out == f"ok    {path.name}\n"
    sample = f"{name}.jsonl"
    subspace("data", "prepare", "--rows", "3", "--", sample)
    assert len((subspace.folder / sample).read_text().splitlines()) == 3


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "subspace", *arguments]


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in which `subspace` is the command line."""
    whole = f'set -o pipefail\nsubspace() {{ "{sys.executable}" -m subspace "$@"; }}\n{script}'
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    return subprocess.run(
        ["bash", "-c", whole], cwd=folder, env=kept | environment, capture_output=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "script",
    [
        "subspace validate recipe.yaml <&-",
        "subspace validate recipe.yaml >&-",
        "subspace validate recipe.yaml <&- >&- 2>&-",
        "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 subspace validate --show recipe.yaml",
        "TERM=dumb COLUMNS=20 subspace methods adalora",
        "subspace methods | head -1",
        "subspace methods lora | true",
        "unset HOME; subspace validate recipe.yaml",
    ],
)
def test_odd_surroundings(script: str, subspace: CommandLine) -> None:
    subspace.recipe({"data": {"system": "naïve 中文"}})
    result = shell(script, subspace.folder)
    assert (result.returncode, result.stderr) == (0, b"")


def test_narrow_and_dumb_terminals(own_run: Path, subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "20")
    assert "q_proj" in subspace("plan", subspace.recipe()).out.replace("\n", "")
    assert "⟦" in subspace("data", "preview", "recipe.yaml").out
    assert "exact" in subspace("evaluate", own_run, "data.validation=sums.jsonl", "evaluation.metrics=[exact_match]",
                               "evaluation.max_new_tokens=1", "--name", "narrow").out  # fmt: skip


def test_input_that_is_closed_ends_a_chat(
    finished: Path, subspace: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert subspace("chat", finished).out == ""


def test_a_reader_that_leaves_does_not_end_a_run(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`subspace train recipe.yaml 2>&1 | head -1`: the pipe breaks in the middle."""
    import io

    from subspace.cli import console

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            if "planning" in text:
                raise BrokenPipeError
            return super().write(text)

    made = console.error_console
    pipe = Pipe()

    def broken() -> object:
        found = made()
        found.file = pipe
        return found

    monkeypatch.setattr(console, "error_console", broken)
    subspace("train", subspace.recipe())
    assert pipe.getvalue() == "reading data ...\n"
    assert (subspace.folder / "out" / "metrics.json").exists()


@pytest.mark.slow
def test_training_without_home_or_cache(subspace: CommandLine) -> None:
    """As in a container whose file system is read-only: nothing is written but the run folder."""
    subspace.recipe()
    nowhere = {"HF_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none"}
    result = shell("subspace train recipe.yaml </dev/null", subspace.folder, **nowhere)
    assert result.returncode == 0, result.stderr
    assert (subspace.folder / "out" / "adapter" / "adapter_model.safetensors").exists()


def test_hub_model_without_a_cache_folder(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers, and there is no place for what it would send."""
    from types import SimpleNamespace

    import huggingface_hub

    answer = SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *arguments, **options: answer)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/proc/none/hub")
    recipe = subspace.recipe({"model": {"model_name_or_path": "someone/model"}})
    subspace.refused("train", recipe, status=5, code="E-RES-003", said=["model cache: ", "/proc/none/hub", "HF_HOME"])


def test_output_folder_that_cannot_be_written(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object, **options: object) -> None:
        pytest.fail("weights were read")

    monkeypatch.setattr("subspace.models.load.load_model", read)
    given = ["training.output_dir=/proc/none/run"]
    subspace.refused("train", subspace.recipe(), *given, status=5, code="E-RES-002", said="/proc/none/run: ")


def test_debug_shows_the_traceback_that_nobody_else_sees(subspace: CommandLine) -> None:
    result = shell("subspace train absent.yaml --debug", subspace.folder)
    assert result.returncode == 2
    assert b"Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(b"E-CFG-001 absent.yaml: no such file")


def test_a_mistake_of_ours_is_one_line_too(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("hf_" + "a1B2" * 8 + "\nsecond line")

    monkeypatch.setattr("subspace.pipeline.resolve.recipe_paths", fail)
    told = subspace.refused(
        "validate", "recipe.yaml", status=1, code="E-RUN-001", said=["ZeroDivisionError", "--debug"]
    )
    assert "a1B2" not in told
    assert "second line" not in told


def test_help_lists_every_verb_and_needs_no_torch(subspace: CommandLine) -> None:
    heavy = ("torch", "transformers", "peft", "accelerate", "datasets", "matplotlib")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({heavy!r}))
from subspace.cli.main import main
main(sys.argv[1:])
"""

    def without_torch(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=subspace.folder
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    shown = without_torch("--help")
    assert all(f"\n  {names[0]} " in shown for names in VERBS.values())
    recipes = Path(__file__).parents[2] / "recipes"
    assert without_torch("validate", str(recipes)).count("ok ") == len(list(recipes.glob("*.yaml")))


@pytest.mark.parametrize("verb", [name for names in VERBS.values() for name in names])
def test_every_verb_has_help(verb: str, subspace: CommandLine) -> None:
    shown = subspace(verb, "--help").out
    assert shown.startswith(f"Usage: subspace {verb}")
