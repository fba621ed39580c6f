"""Architecture rules: who may import whom, and that the files around the code agree with it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "plugin"
EXPORTERS = ROOT / "exporters"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The storeys of the plugin, from the ground up. A package imports from the storeys below it, never from above.
LAYERS = (
    "errors",
    "progress",
    "notebook",
    "wire_format",
    "tracing",
    "encoders",
    "kernels",
    "index_types",
    "sources",
    "milvus",
    "catalog",
    "encoder_store",
    "search",
    "ingest",
    "collection",
    "replica",
    "evaluation",
    "lite",
    "gateway",
    "migration",
    "cli",
)
MAY_TALK_TO_MILVUS = (
    "alula.milvus",
    "alula.catalog",
    "alula.encoder_store",
    "alula.collection",
    "alula.search",
    "alula.ingest",
    "alula.lite",
    "alula.evaluation.native",
    "alula.gateway",
)
# Tests of no module in particular: of a contract that several keep, or of a kind of input.
OF_SEVERAL_MODULES = {
    "tests/unit/cli/test_messages.py",
    "tests/unit/encoders/test_embed.py",
    "tests/unit/encoders/test_hostile.py",
    "tests/unit/encoders/test_outputs.py",
    "tests/unit/exporters/drq/test_ordinary_data.py",
    "tests/unit/index_types/test_third_party.py",
    "tests/unit/sources/test_memory.py",
    "tests/unit/sources/test_raw_files.py",
    "tests/unit/sources/test_tables.py",
}
OPEN_TO_EXPORTERS = ("alula.encoders", "alula.errors", "alula.index_types", "alula.progress", "alula.sources")

# Before IMPORT_EVERYTHING: a package `alula` whose __init__ does nothing, to load its lower parts alone.
WITHOUT_THE_FACADE = f"""
import sys, types
alula = sys.modules["alula"] = types.ModuleType("alula")
alula.__path__ = [{str(PLUGIN / "alula")!r}]
"""
IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} must not be imported here", name=name)

sys.meta_path.insert(0, Blocker())
for root in ROOTS:
    try:
        package = importlib.import_module(root)
    except ModuleNotFoundError as error:
        if error.name != root:
            raise
        continue
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), root + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
RUN_HELP = """
from alula.cli import main
sys.argv = ["alula", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def run_blocked(blocked: tuple[str, ...], roots: tuple[str, ...], *, before: str = "", after: str = "") -> None:
    """Import every module below ``roots`` in a new process in which ``blocked`` cannot be imported."""
    program = f"BLOCKED = {blocked!r}\nROOTS = {roots!r}\n{before}{IMPORT_EVERYTHING}{after}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=PLUGIN,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Every imported name with its line, function-level imports included; ``from a import b`` gives ``a.b``."""
    module = module_name(path, root)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def every_import(root: Path) -> Iterator[tuple[str, str, str]]:
    """(where, importing module, imported name) for all code below ``root``."""
    for path in sorted(root.rglob("*.py")):
        for line, name in imports(path, root):
            yield f"{path.relative_to(ROOT)}:{line}", module_name(path, root), name


def is_below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def layer(name: str) -> int | None:
    """The storey of a module of the plugin; None for the package itself and for what is in no storey."""
    parts = name.split(".")
    if parts[0] != "alula" or len(parts) < 2:
        return None
    return LAYERS.index(parts[1]) if parts[1] in LAYERS else None


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def module_graph(root: Path) -> dict[str, set[str]]:
    """Which module of a tree imports which other, lazily or for types alone too.

    A package's ``__init__`` hands names on, so a name that it re-exports counts as an import of the package.
    """
    modules = {module_name(path, root) for path in root.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for _, module, name in every_import(root):
        target = name if name in modules else name.rpartition(".")[0]
        if target in modules and target != module and not module.startswith(target + "."):
            graph.setdefault(module, set()).add(target)
    return graph


def broken(rule: str, found: list[str]) -> str:
    return f"{rule}:\n" + "\n".join(found)


def test_plugin_never_imports_torch_or_the_exporters():
    found = [
        f"{where} imports {name}"
        for where, _, name in every_import(PLUGIN)
        if is_below(name, "torch", "onnxscript", "alula_exporters")
    ]
    assert not found, broken("plugin/ runs without torch and without alula_exporters", found)


def test_exporters_import_only_what_is_open_to_them():
    found = [
        f"{where} imports {name}"
        for where, _, name in every_import(EXPORTERS)
        if is_below(name, "alula") and not is_below(name, *OPEN_TO_EXPORTERS)
    ]
    assert not found, broken(f"exporters/ may import of the plugin only {', '.join(OPEN_TO_EXPORTERS)}", found)


def test_plugin_imports_only_downwards():
    found = []
    for where, module, name in every_import(PLUGIN):
        above, below = layer(module), layer(name)
        if above is not None and below is not None and below > above:
            found.append(f"{where} imports {name}")
    assert not found, broken("a package imports from the storeys below it (LAYERS in this file)", found)


@pytest.mark.parametrize("root", [PLUGIN, EXPORTERS], ids=["plugin", "exporters"])
def test_no_modules_import_each_other_in_a_circle(root):
    found = circles(module_graph(root))
    assert not found, broken("modules that import each other in a circle", [", ".join(group) for group in found])


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_every_module_of_the_plugin_has_a_layer():
    tops = {
        path.stem for path in (PLUGIN / "alula").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    homeless = tops - {"__init__", "__main__"} - set(LAYERS)
    assert not homeless, f"say in LAYERS (in this file) what {', '.join(sorted(homeless))} may import"


def test_unit_tests_mirror_the_packages():
    homeless = set()
    for test in (ROOT / "tests" / "unit").rglob("test_*.py"):
        folders = test.relative_to(ROOT / "tests" / "unit").parent.parts
        package = EXPORTERS / "alula_exporters" if folders[:1] == ("exporters",) else PLUGIN / "alula"
        home = package.joinpath(*folders[folders[:1] == ("exporters",) :], test.stem.removeprefix("test_"))
        if not (home.with_suffix(".py").is_file() or (home / "__init__.py").is_file()):
            homeless.add(test.relative_to(ROOT).as_posix())
    assert homeless == OF_SEVERAL_MODULES


def test_only_some_packages_talk_to_milvus():
    found = [
        f"{where} imports {name}"
        for where, module, name in every_import(PLUGIN)
        if is_below(name, "pymilvus", "milvus_lite", "grpc") and not is_below(module, *MAY_TALK_TO_MILVUS)
    ]
    assert not found, broken(f"only {', '.join(MAY_TALK_TO_MILVUS)} talk to Milvus", found)


def test_plugin_imports_without_torch_and_exporters():
    run_blocked(("torch", "onnxscript", "alula_exporters"), ("alula",))


@pytest.mark.skipif(not (PLUGIN / "alula" / "cli").exists(), reason="there is no command line yet")
@pytest.mark.parametrize("blocked", [("torch", "onnxscript"), ("torch", "onnxscript", "alula_exporters")])
def test_help_works_without_torch_and_exporters(blocked):
    # The second case also stands for a stranger's package whose command cannot be loaded: the others still work.
    run_blocked(blocked, (), after=RUN_HELP)


def test_index_types_and_what_they_need_work_without_pymilvus():
    run_blocked(
        ("pymilvus", "milvus_lite", "grpc", "torch", "alula_exporters"),
        ("alula.encoders", "alula.kernels", "alula.index_types"),
        before=WITHOUT_THE_FACADE,
    )


def test_versions_agree():
    version = PROJECT["version"]
    assert metadata.version("alula") == version
    assert getattr(__import__("alula"), "__version__", version) == version
    assert version in (ROOT / "CHANGELOG.md").read_text()


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_help_lists_the_targets():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+) ", done.stdout, re.MULTILINE))
    assert listed == make_targets()
    assert {"help", "demo", "test", "lint", "bench", "format", "clean"} <= listed


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", ".ci/run", ".pre-commit-config.yaml"])
def test_make_targets_that_files_name_exist(file):
    # In prose only what is set as code counts ("make sure" is no target), in code lines that begin with make.
    options = r"(?:(?:--[a-z-]+|[A-Z_0-9]+=\S+) +)*"
    text = (ROOT / file).read_text()
    named = set(re.findall(rf"(?:`|^(?:\$ )?|^step |entry: )make +{options}([a-z][a-z-]*)", text, re.MULTILINE))
    assert named <= make_targets()


def test_constraints_pin_everything_that_is_installed_with_alula():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins), "constraints.txt pins exact versions"
    pinned = {canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate()}

    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    todo = [("alula", extra) for extra in ("", *PROJECT["optional-dependencies"])]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # not in this environment: another platform's, or an extra that was not asked for
        names.add(canonicalize_name(name))
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    # The CUDA build of torch brings its own libraries, each pinned by torch itself.
    missing = {name for name in names - pinned - {"alula"} if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not missing, f"add to constraints.txt, as `pip freeze` shows them: {', '.join(sorted(missing))}"


def test_the_wheel_holds_both_packages_with_their_types():
    for package in (PLUGIN / "alula", EXPORTERS / "alula_exporters"):
        assert (package / "__init__.py").is_file()
        assert (package / "py.typed").is_file(), f"{package.name} has types: it needs an empty py.typed"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
