"""Lets Python 3.6, of an old image, load the supervisor: it does not know `from __future__ import annotations`.

Annotations are taken out while a module is loaded, as nothing reads them. So the others are written as they should be.
"""

import ast
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any, Optional


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_ImportFrom(self, node: ast.ImportFrom) -> Optional[ast.ImportFrom]:  # noqa: UP045 - for Python 3.6
        return None if node.module == "__future__" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()


def bare(tree: ast.Module) -> ast.Module:
    """Take the annotations out of a module, and return it."""
    _WithoutAnnotations().visit(tree)
    return ast.fix_missing_locations(tree)


class _Loader(SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        return compile(bare(ast.parse(data, path)), path, "exec", dont_inherit=True, optimize=_optimize)


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:  # noqa: UP045
        spec = super().find_spec(fullname, path, target) if fullname.startswith("orchestrator.") else None
        if spec and spec.origin:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def install() -> None:
    """Load all further modules of spell this way."""
    sys.meta_path.insert(0, _Finder)
