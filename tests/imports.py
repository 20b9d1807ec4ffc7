"""What the files of the project import, read from their syntax: nothing is executed."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Import:
    """One imported module, or name of a module.

    Attributes:
        module: The module, such as ``"marc.video"``.
        name: What is imported from it; None for the module itself.
        line: Where it stands.
        in_function: Whether it is imported when a function is called.
        for_types: Whether it is for type checkers only.
        extras: Which extras are named if it is not there (`marc.extras.extra`).
    """

    module: str
    name: str | None
    line: int
    in_function: bool
    for_types: bool
    extras: frozenset[str]

    @property
    def package(self) -> str:
        """The outermost package."""
        return self.module.partition(".")[0]


class _Imports(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.found: list[Import] = []
        self._functions, self._types, self._extras = 0, False, frozenset[str]()
        self._constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_If(self, node: ast.If) -> None:
        before, self._types = self._types, self._types or ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in node.body:
            self.visit(child)
        self._types = before
        for child in node.orelse:
            self.visit(child)

    def visit_With(self, node: ast.With) -> None:
        before = self._extras
        self._extras |= {name for item in node.items if (name := self._extra(item.context_expr))}
        self.generic_visit(node)
        self._extras = before

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, None, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level and node.module, "the project's imports are absolute"
        for alias in node.names:
            self._add(node.module, alias.name, node.lineno)

    def _add(self, module: str, name: str | None, line: int) -> None:
        self.found.append(Import(module, name, line, self._functions > 0, self._types, self._extras))

    def _extra(self, call: ast.expr) -> str | None:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "extra"):
            return None
        (argument,) = call.args
        return self._constants[argument.id] if isinstance(argument, ast.Name) else ast.literal_eval(argument)


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Every import of a file, also inside its functions."""
    return tuple(_Imports(ast.parse(path.read_text())).found)


@cache
def modules() -> dict[str, Path]:
    """The modules of the package by name; a package has that of its folder."""
    files = sorted((ROOT / "marc").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def module_graph() -> dict[str, set[str]]:
    """Which modules of the package each one imports, whenever that happens; what is for type checkers left out.

    A name that a package hands on lazily counts as imported from where it lives.
    """
    graph = {}
    for module, path in modules().items():
        homes = {_home(found) for found in imports_of(path) if not found.for_types}
        graph[module] = {home for home in homes if home is not None} - {module}
    return graph


def _home(found: Import) -> str | None:
    if found.name is None or found.module not in modules():
        return found.module if found.module in modules() else None
    if f"{found.module}.{found.name}" in modules():
        return f"{found.module}.{found.name}"
    return _lazy_names(found.module).get(found.name, found.module)


@cache
def _lazy_names(package: str) -> dict[str, str]:
    """Names that a package imports when it is asked for them (`marc.lazy`), with the modules where they live."""
    for node in ast.parse(modules()[package].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return ast.literal_eval(node.value)
    return {}


def part_of(module: str) -> str | None:
    """The part of the package that ``marc.<part>...`` names, None for any other module."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or None if package == "marc" else None
