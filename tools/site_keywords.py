# SPDX-License-Identifier: Apache-2.0
"""Shows the API reference what `**options: Unpack[T]` stands for: types and defaults of every keyword. For griffe.

Types are those of the `TypedDict`; defaults those of the method of the same name of `Codec`.
"""

from __future__ import annotations

from typing import Any

from griffe import Class, Expr, ExprName, ExprSubscript, Extension, Function, Module, Parameter, ParameterKind

DEFAULTS = {"model": "None", "device": "'auto'", "best_effort": "False"}  # of keywords that `Codec` does not have


class Keywords(Extension):
    """Gives functions the parameters that they take as a `TypedDict`."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Change the functions of the package.

        Args:
            pkg: loaded.
        """
        for module in pkg["batch"].modules.values():
            for function in module.functions.values():
                _expand(function, pkg["codec.Codec"].functions.get(function.name))


def _expand(function: Function, method: Function | None) -> None:
    for parameter in list(function.parameters):
        annotation = parameter.annotation
        if parameter.kind is not ParameterKind.var_keyword or not isinstance(annotation, ExprSubscript):
            continue
        keywords = function.module[str(annotation.slice)]
        if isinstance(keywords, Class):
            del function.parameters[parameter.name]
            for attribute in keywords.attributes.values():
                default = _literal(function, method.parameters[attribute.name].default) if (
                    method and attribute.name in method.parameters
                ) else DEFAULTS[attribute.name]  # fmt: skip
                kind = ParameterKind.keyword_only
                function.parameters.add(
                    Parameter(attribute.name, annotation=attribute.annotation, kind=kind, default=default)
                )


def _literal(function: Function, default: str | Expr | None) -> str | Expr | None:
    """What a named constant of the package is."""
    if isinstance(default, ExprName) and default.canonical_path.startswith("vqcodec."):
        value = function.modules_collection[default.canonical_path].value
        return default if isinstance(value, Expr) and "(" in str(value) else str(value)
    return default
