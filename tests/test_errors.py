"""The exceptions are the tree that their file draws, and messages help."""

from __future__ import annotations

import inspect
import re

import pytest

from lucid import errors
from lucid.errors import LucidError, MissingDependencyError, require, suggest


def test_the_drawn_tree_is_the_real_one():
    """Indentation of the drawing gives the parent, brackets the built-in base."""
    lines = re.findall(r"^    ([ │├└─]*)(\w+)(?: \((\w+)\))?", errors.__doc__, re.MULTILINE)
    path: list[str] = []
    drawn = {}
    for indent, name, builtin in lines:
        depth = len(indent) // 4
        path = [*path[:depth], name]
        drawn[name] = ({path[-2]} if depth else {"Exception"}) | ({builtin} - {""})
    real = {
        name: {base.__name__ for base in value.__bases__}
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception)
    }
    assert drawn == real
    assert all(issubclass(getattr(errors, name), LucidError) for name in drawn)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("widht", "; did you mean 'width'?"), ("zzz", ""), ("", "")],
)
def test_suggest_gives_the_nearest_name(name, hint):
    assert suggest(name, ["width", "resolution"]) == hint


def test_require_imports():
    assert require("json.decoder", extra="train").JSONDecoder is not None


def test_require_names_package_and_extra():
    with pytest.raises(MissingDependencyError, match=r"needs no_such_package.*mobilenet\[train\]"):
        require("no_such_package.part", extra="train")


def test_require_does_not_hide_a_broken_package(tmp_path, monkeypatch):
    """A package that is there, but lacks one of its own, is not called missing."""
    (tmp_path / "broken_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("broken_package", extra="train")
    assert not isinstance(caught.value, LucidError)
    assert caught.value.name == "no_such_package"
