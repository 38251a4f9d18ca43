"""``lucid engine`` says what the engine does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from checkpoint_helpers import small_checkpoint
from click.testing import CliRunner

from lucid.cli import main
from lucid.engine import PRECISIONS, Engine, Precision, isas
from lucid.errors import ConfigError
from lucid.lowering import lower
from lucid.quantization import quantise


def shown() -> dict[str, Any]:
    result = CliRunner().invoke(main, ["engine", "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def chosen(precision: Precision) -> str | None:
    """What an engine of this precision really takes here."""
    network = lower(small_checkpoint())
    try:
        if precision == "int8":
            return Engine(quantise(network, {layer.name: 1.0 for layer in network.layers[:-1]})).isa
        return Engine(network, precision).isa
    except ConfigError:
        return None


@pytest.mark.parametrize("forced", [None, "", "scalar", *isas("float32")[:1], "avx3"])
def test_what_it_shows_is_what_engines_do(
    forced: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced is None:
        monkeypatch.delenv("LUCID_ISA", raising=False)
    else:
        monkeypatch.setenv("LUCID_ISA", forced)
    found = shown()
    assert found["LUCID_ISA"] == (forced or None)
    assert found["threads"] == Engine(small_checkpoint(), "float32", None, "scalar").threads
    assert [one["precision"] for one in found["precisions"]] == list(PRECISIONS)
    for one in found["precisions"]:
        precision = one["precision"]
        sets = one["instruction_sets"]
        assert one["chosen"] == chosen(precision)
        assert [isa["name"] for isa in sets] == isas(precision, runnable=False)
        assert [isa["name"] for isa in sets if isa["runs_here"]] == isas(precision)


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUCID_ISA", raising=False)
    result = CliRunner().invoke(main, ["engine"])
    assert result.exit_code == 0
    assert result.stderr == ""
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["precision", "instruction", "set", "on", "this", "CPU"]
    assert [row[-2:] for row in rows if "chosen" in row] == [["yes,", "chosen"]] * sum(
        1 for precision in PRECISIONS if isas(precision)
    )
    assert "LUCID_ISA: not set" in result.stdout


def test_a_set_that_is_not_here_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCID_ISA", "\x1b[31mavx3")
    result = CliRunner().invoke(main, ["engine"])
    assert result.exit_code == 0
    assert "chosen" not in result.stdout
    assert result.stderr.startswith("lucid: warning: with LUCID_ISA set to ")
    assert "nothing here runs int8, float32, bfloat16, float32-split" in result.stderr
    assert "\x1b" not in result.output
