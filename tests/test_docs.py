"""What the documentation says can be typed: commands, configurations, Python, links."""

import ast
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jaxvision import cli, common_keys, config_files, models, tasks
from jaxvision.commands import COMMANDS
from jaxvision.tasks import configuration

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMING_FROM = sorted((ROOT / "docs" / "coming_from").glob("*.md"))
COURSE = sorted((ROOT / "docs" / "course").glob("*.md"))
METRICS = {"ap50", "bleu4"}
CONFIGS = sorted((ROOT / "configs").glob("*/*.py"))
KEYS = {key for name in tasks.TASKS for key in tasks.schema(name).keys}


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.S | re.M)


def commands():
    """(file, command line) of every command in the pages' blocks and the configs' docstrings."""
    for path in [*PAGES, *CONFIGS]:
        text = path.read_text()
        if path.suffix == ".py":
            text = "".join(re.findall(r"^ {4}.*\n", text.split('"""')[1], re.M))
            text = text.replace("\\\\\n", "\\\n")
        else:
            text = "".join(blocks(path, ""))
            if path.parent.name in ("coming_from", "course"):  # commands are cells of tables there
                text += "".join(
                    f"{code}\n" for code in re.findall(r"`([^`\n]+)`", path.read_text())
                )
        for line in text.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(jaxvision|python train\.py) (.*)", line)
            if found and "..." not in line:
                start = "train " if found[1] != "jaxvision" else ""
                yield path.relative_to(ROOT), start + found[2].split(" #")[0]


COMMAND_LINES = list(commands())


@pytest.mark.parametrize(("path", "line"), COMMAND_LINES, ids=[str(c) for c in COMMAND_LINES])
def test_commands_can_be_typed(path, line):
    arguments = shlex.split(line.replace("=DIR", "=dir"))
    options, rest = cli._parser().parse_known_args(arguments)
    assert options.command in COMMANDS
    overrides = cli._overrides(rest)  # anything that is no option is refused
    config = getattr(options, "config", None)
    if config and not re.match(r"my_|mine", config):
        config_files.find(config.partition(":")[0])
        # An experiment with these keys; a workdir's own configuration has others to check.
        configuration.load(config, {k: v for k, v in overrides.items() if k != "plugins"})


def launched():
    """The command line of each launch file, without variables of its own."""
    folder = ROOT / "docs" / "launch"
    yield yaml.safe_load((folder / "jobset.yaml").read_text())["spec"]["replicatedJobs"][0][
        "template"
    ]["spec"]["template"]["spec"]["containers"][0]["command"]
    for name in ("slurm.sh", "tpu_pod.sh"):
        subprocess.run(["bash", "-n", str(folder / name)], check=True)
        (line,) = re.findall(r"jaxvision (train .*?)\"?$", (folder / name).read_text(), re.M)
        yield ["jaxvision", *shlex.split(line)]
    source = ast.parse((folder / "on_ray.py").read_text())
    texts = [node.value for node in ast.walk(source) if isinstance(node, ast.Constant)]
    yield next(t for t in texts if str(t).strip().startswith("jaxvision")).split()


def test_launch_files_start_trainings_that_exist():
    found = list(launched())
    assert len(found) == 4
    for program, *arguments in found:
        assert program == "jaxvision"
        options, rest = cli._parser().parse_known_args(arguments)
        overrides = cli._overrides(rest)
        assert overrides["mesh.data"] == "-1"
        assert configuration.load(options.config, overrides).task == "classification"
        assert options.workdir


def test_there_are_commands_to_check():
    assert len(COMMAND_LINES) > 60


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"https?://", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda p: p.stem)
def test_pages_for_users_of_other_libraries(page):
    text, namespace = page.read_text(), {}
    ours = "".join(line.rpartition(" | ")[2] for line in text.splitlines(keepends=True))
    for key in re.findall(r"--config\.([a-z_.]+)", ours):
        assert key in KEYS, key
    for path in re.findall(r"configs/[a-z_/]+\.py", ours):
        assert (ROOT / path).is_file(), path
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)


@pytest.mark.parametrize("page", COURSE, ids=lambda p: p.stem)
def test_what_shows_the_lectures_numbers_exists(page):
    """Files, tests (`::name` is of the file before it) and networks."""
    code, file = re.findall(r"`([^`\n]+)`", page.read_text()), ""
    for text in code:
        path, _, test = text.partition("::")
        if text.startswith("::") or re.fullmatch(r"(tests|benchmarks|configs)/\S+\.py", path):
            file = path or file
            assert (ROOT / file).is_file(), text
            assert not test or f"def {test}(" in (ROOT / file).read_text(), text
        if re.fullmatch(r"[a-z]+\w*\d\w*(_\w+)?", text) and text not in METRICS:
            models.variant(text)


@pytest.mark.parametrize("page", ["config_file", "own_images"])
def test_configurations_in_the_pages_are_valid(page, tmp_path):
    (text,) = blocks(ROOT / "docs" / f"{page}.md", "python")
    (tmp_path / "mine.py").write_text(text)
    assert configuration.load(str(tmp_path / "mine.py")).task == "classification"
    if "wide" in text:
        wide = configuration.load(f"{tmp_path / 'mine.py'}:wide")
        assert wide.model.options.to_dict() == {"hidden": (256,)}


def test_the_page_of_keys_is_that_of_the_program(capsys, monkeypatch):
    told = replace(common_keys.KEYS["log.report"], default=True)  # tests have it off
    monkeypatch.setitem(common_keys.KEYS, "log.report", told)
    cli.run(["info", "config", "--markdown"])
    assert (ROOT / "docs" / "configuration.md").read_text() == capsys.readouterr().out


def test_the_python_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for text in blocks(ROOT / "docs" / "python.md", "python"):
        text = text.replace('"2 epochs"}', '2, "model.name": "mlp"}')
        exec(compile(text, "python.md", "exec"), namespace)
    assert namespace["prediction"].outputs["probabilities"].shape == (10,)
    assert namespace["logits"].shape == (2, 10)
    assert [m.shape[1] for m in namespace["maps"]] == [32, 16, 8]
    assert int(namespace["state"].step) == 1
