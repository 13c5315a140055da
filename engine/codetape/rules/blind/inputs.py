"""Which parts of an asked expression are inputs of the code, and which could tell it what is expected."""

import ast
from collections.abc import Collection, Mapping


class Inputs:
    """What counts as an input: what the code's ``own`` functions, and methods of its objects, are called with.

    ``assigned`` are the values that local names were given, by name.
    """

    def __init__(self, own: Collection[str], assigned: Mapping[str, ast.expr]) -> None:
        self.own, self.assigned = own, assigned

    def tell(self, node: ast.expr) -> bool:
        """Whether an expression holds a value that is no input of the code: it could be, or tell, what is expected."""
        if isinstance(node, ast.Constant | ast.Lambda):
            return True
        if isinstance(node, ast.Call):
            return self._call_tells(node)
        if isinstance(node, ast.Subscript):
            return self.tell(node.value)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            compares = any(isinstance(n, ast.Compare) for part in parts for n in ast.walk(part))
            return compares or any(map(self.tell, parts))
        return any(self.tell(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))

    def _call_tells(self, node: ast.Call) -> bool:
        function = node.func
        if isinstance(function, ast.Name):
            if function.id in self.own:
                return False
            first = node.args[:1] if function.id == "round" else node.args
            flags = [
                k.value
                for k in node.keywords
                if not (isinstance(k.value, ast.Constant) and type(k.value.value) is bool)
            ]
            return any(map(self.tell, [*first, *flags]))
        if isinstance(function, ast.Attribute) and self._is_own_object(function.value):
            return self.tell(function.value)
        receiver = [function.value] if isinstance(function, ast.Attribute) else [function]
        return any(map(self.tell, [*receiver, *node.args]))

    def _is_own_object(self, node: ast.expr) -> bool:
        """Whether an expression is an object of one of the code's classes: its methods are called with inputs."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                return node.func.id in self.own and node.func.id[:1].isupper()
            node = node.func if isinstance(node, ast.Call) else node.value
        if not isinstance(node, ast.Name):
            return False
        value = self.assigned.get(node.id)
        return value is None or self._is_own_object(value)
