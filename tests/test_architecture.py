"""Imports point down only; ray stays where it belongs; the house has the folders it should."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("backbone", "pairs", "pretrain", "personalize", "generate", "evaluate")
BASE = ("artifacts", "model", "diffusion", "scenes", "vision")
RUNNING = ("training", "runtime")
# What each package may import besides itself and `errors`.
ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    **dict.fromkeys(BASE, frozenset()),
    **{name: frozenset({*BASE}) for name in RUNNING},
    **{name: frozenset({*BASE, *RUNNING}) for name in STAGES},
}
ENTRY_LINES = 40


def modules() -> list[Path]:
    return [p for d in ("dreambooth3d", "pipelines", "serve") for p in (ROOT / d).rglob("*.py")]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path}: relative import; write it whole")


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if len(parts) > 1 else parts[0]


def test_imports_point_down() -> None:
    wrong = []
    for path in (ROOT / "dreambooth3d").rglob("*.py"):
        package = package_of(path)
        if package == "__init__":
            continue
        assert package in ALLOWED, f"{package} has no place in the house"
        for name in imports(path):
            parts = name.split(".")
            if parts[0] in ("pipelines", "serve", "tests", "benchmarks"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if parts[0] == "dreambooth3d" and len(parts) > 1:
                target = parts[1]
                if target not in {package, "errors", *ALLOWED[package]}:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_pipelines_and_serve_do_not_import_each_other() -> None:
    for here, there in (("pipelines", "serve"), ("serve", "pipelines")):
        for path in (ROOT / here).rglob("*.py"):
            assert not [n for n in imports(path) if n.split(".")[0] == there], path


def test_ray_is_imported_only_where_work_is_placed() -> None:
    wrong = []
    for path in modules():
        inside = path.relative_to(ROOT).parts
        is_allowed = inside[0] == "serve" or inside[1] == "runtime" or inside[-1] == "job.py"
        if not is_allowed and any(n.split(".")[0] == "ray" for n in imports(path)):
            wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_every_stage_has_the_same_files() -> None:
    for stage in STAGES:
        folder = ROOT / "dreambooth3d" / stage
        assert {"__init__.py", "config.py", "job.py"} <= {p.name for p in folder.iterdir()}, stage


def test_entry_scripts_are_thin() -> None:
    for path in (ROOT / "pipelines").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "guarded(main)" in text:
            code = [line for line in text.splitlines() if line.strip()]
            assert len(code) <= ENTRY_LINES, path


def test_library_parses_no_arguments_and_package_root_is_empty() -> None:
    for path in (ROOT / "dreambooth3d").rglob("*.py"):
        assert "argparse" not in set(imports(path)), path
    assert list(imports(ROOT / "dreambooth3d" / "__init__.py")) == []


def test_importing_the_library_is_quick_and_does_nothing() -> None:
    code = "import sys, dreambooth3d; assert not {'torch', 'ray'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_the_two_commands_in_its_first_screen() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    text = "\n".join(first_screen)
    assert "make demo" in text
    assert "make test" in text
