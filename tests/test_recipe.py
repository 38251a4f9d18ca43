"""The recipe: what it accepts, what it says of the rest, and its way through TOML."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.errors import ConfigError
from lucid.training import Recipe, read_recipe

shares = st.floats(0, 0.99)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 10**5),
            "learning_rate": st.floats(1e-12, 1e12),
            "weight_decay": st.floats(0, 1),
            "label_smoothing": shares,
            "flip": st.booleans(),
            "policy": st.sampled_from(["none", "trivial", "rand"]),
            "seed": st.integers(0, 2**63 - 1),
        },
    )
)
def test_toml_gives_back_what_was_written(values) -> None:
    recipe = Recipe.from_dict(values)
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize("key", [field.name for field in fields(Recipe)])
@pytest.mark.parametrize("value", [None, "much", [], float("nan"), -1, -0.5], ids=repr)
def test_every_key_refuses_what_makes_no_sense(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Recipe.from_dict({key: value})


@pytest.mark.parametrize("key", [field.name for field in fields(Recipe)])
def test_every_key_is_documented(key: str) -> None:
    assert re.search(rf"^ +{key}(, \w+)*: ", Recipe.__doc__ or "", re.MULTILINE)


def test_an_unknown_key_gets_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("learning_rat = 0.1")
    with pytest.raises(ConfigError, match=r"recipe\.toml: .*'learning_rat'.*'learning_rate'"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs = ", "no valid TOML"),
        (b"\xff\xfe", "no valid TOML"),
        (b"epochs = 0", "epochs must be a whole number from 1"),
        (b"learning_rate = 1e31", "learning_rate must be above 0, at most 1e30"),
        (b"# " + b"x" * 10**6, "too many; the limit is 1000000"),
    ],
)
def test_a_bad_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"recipe\.toml: .*{message}"):
        read_recipe(path)
    with pytest.raises(ConfigError, match="missing"):
        read_recipe(tmp_path / "missing.toml")
    path.write_bytes(b"\xef\xbb\xbfepochs = 7")  # as Notepad saves it
    assert read_recipe(path) == {"epochs": 7}
