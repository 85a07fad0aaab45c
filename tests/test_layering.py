"""The house's rules, read from the source: imports point one way, and importing the package loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lora_trainer"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the others. Programs, which put everything together, may import all of them.
EVERYBODY = {
    "checkpoint_marks", "config", "dtypes", "errors", "families", "files", "lora_folder", "memory", "noise_schedule",
    "safetensors_file", "seeds", "subjects", "tokens", "toml_file",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "config": EVERYBODY,
    "frozen_weights": EVERYBODY,
    "kohya": EVERYBODY,
    "advice": EVERYBODY | {"hosts.base"},
    "fitting": EVERYBODY | {"hosts.base", "demo"},
    "card": EVERYBODY | {"hosts.base"},
    "dataset": EVERYBODY | {"hosts.base"},
    "network": EVERYBODY | {"hosts.base"},
    "lora_tools": EVERYBODY
    | {"network", "hosts.standalone.detect", "hosts.standalone.ldm_keys", "hosts.standalone.checkpoint_file"},
    "measures": EVERYBODY | {"hosts.base", "network", "training.diffusion"},
    "training": EVERYBODY | {"frozen_weights", "hosts.base", "dataset", "network", "measures"},
    "runs": EVERYBODY | {"training", "evaluation", "card"},
    "evaluation": EVERYBODY | {"hosts.base", "training", "network", "dataset", "measures", "card"},
    "hosts": EVERYBODY | {"frozen_weights", "hosts", "network", "training.events"},
}
PROGRAMS = {"cli", "ui", "bench", "demo", "__main__"}


def part_of(path: Path) -> str:
    """The top-level part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, guarded: bool = True) -> Iterator[tuple[str, int]]:
    """Dotted names that are imported, with their lines; without ``guarded`` those under TYPE_CHECKING are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not guarded:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        else:
            yield from imports(node, guarded)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part in PROGRAMS or part == "__init__":
        return
    allowed = {f"lora_trainer.{name}" for name in ALLOWED.get(part, EVERYBODY) | {part}} | {"lora_trainer.__version__"}
    for name, line in imports(parse(path)):
        if name == "lora_trainer" or not name.startswith("lora_trainer."):
            continue
        package = any(a.startswith(f"{name}.") for a in allowed)  # "from lora_trainer import config"
        assert package or any(name == a or name.startswith(f"{a}.") for a in allowed), (
            f"{path.relative_to(ROOT)}:{line} imports {name}"
        )


def graph() -> dict[str, set[str]]:
    """For every module of the package, those that it imports anywhere, under TYPE_CHECKING and in functions, too."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    return {
        module: {name for name, _ in imports(parse(path)) if name in names} - {module} for module, path in names.items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle; empty if there is none."""
    state: dict[str, int] = {}

    def visit(module: str, way: list[str]) -> list[str]:
        if state.get(module) == 1:
            return way[way.index(module) :]
        if state.get(module) == 2:
            return []
        state[module] = 1
        for other in sorted(edges[module]):
            if found := visit(other, [*way, module]):
                return found
        state[module] = 2
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def test_imports_without_circles() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    edges = graph()
    for module, others in edges.items():  # importing a.b runs a, but a names its parts only to offer them again
        others -= {name for name in others if module.startswith(f"{name}.")}
    assert circle(edges) == []


def test_a_family_is_compared_in_one_file_only() -> None:
    literals = {"sd1", "sd2", "sdxl"}
    data = {"families.py", "presets.py"}  # presets say which families they are for; kohya's form has a field "sdxl"
    for path in FILES:
        if path.name in data or part_of(path) == "kohya":
            continue
        for node in ast.walk(parse(path)):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            sides += node.keys if isinstance(node, ast.Dict) and not path.match("cli/*") else []
            found = {side.value for side in sides if isinstance(side, ast.Constant)} & literals
            assert not found, f"{path.relative_to(ROOT)}:{node.lineno} asks for {found}"


def test_every_part_has_a_place_in_the_order() -> None:
    assert {part_of(path) for path in FILES} <= {*ALLOWED, *PROGRAMS, *EVERYBODY, "__init__"}


@pytest.mark.parametrize(
    ("module", "places"),
    [("gradio", ("lora_trainer/ui/",)),
     ("modules", ("lora_trainer/hosts/a1111", "lora_trainer/hosts/forge/", "lora_trainer/hosts/webui/",
                  "lora_trainer/ui/", "scripts/")),
     ("backend", ("lora_trainer/hosts/forge/",)),
     ("diffusers", ("lora_trainer/hosts/standalone/", "lora_trainer/bench/", "lora_trainer/demo/"))],
)  # fmt: skip
def test_foreign_packages_stay_in_their_corner(module: str, places: tuple[str, ...]) -> None:
    for path in [*FILES, *sorted((ROOT / "scripts").rglob("*.py"))]:
        where = path.relative_to(ROOT).as_posix()
        found = [line for name, line in imports(parse(path)) if name == module or name.startswith(f"{module}.")]
        assert not found or where.startswith(places), f"{where}:{found[0]} imports {module}"


def test_only_messages_for_the_terminal_are_written_to_it() -> None:
    for path in FILES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print",
                "sys.stdout.write",
                "sys.stderr.write",
            }:
                assert part_of(path) in {"cli", "demo"}, f"{path.relative_to(ROOT)}:{node.lineno} prints"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path.relative_to(ROOT)}:{node.lineno} has a bare except"


@pytest.mark.parametrize("part", ["network", "training", "dataset", "evaluation", "hosts", "ui"])
def test_no_global_randomness(part: str) -> None:
    forbidden = (
        "torch.manual_seed",
        "torch.seed",
        "torch.cuda.manual_seed",
        "random.seed",
        "np.random.seed",
        "numpy.random.seed",
    )
    for path in (PACKAGE / part).rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call):
                assert not ast.unparse(node.func).startswith(forbidden), f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize(
    "statement",
    [
        "import lora_trainer",
        "import lora_trainer.config, lora_trainer.config.presets, lora_trainer.kohya, lora_trainer.hosts.base",
        "import lora_trainer.card, lora_trainer.training.events, lora_trainer.ui",
        "from lora_trainer.cli.parser import build_parser; build_parser()",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    heavy = {"torch", "numpy", "PIL", "transformers", "diffusers", "accelerate", "gradio", "safetensors"}
    code = f"{statement}\nimport sys\nprint(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
