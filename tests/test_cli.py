"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from prediction_helpers import write_colour_checkpoint
from training_helpers import coloured_squares

import lucid
from lucid.checkpoint import read_checkpoint, write_checkpoint
from lucid.cli import COMMANDS, main
from lucid.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    LucidError,
    MissingDependencyError,
    OutputError,
    ShapeError,
    TrainingError,
)


def run(*arguments: object, stdin: bytes | None = None, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, [str(a) for a in arguments], input=stdin)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_squares(tmp_path_factory.mktemp("squares") / "data", images=6)


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    return write_colour_checkpoint(data.parent / "model.safetensors", data)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Makes the command ``inspect`` raise what it is given."""

    def install(error: BaseException) -> None:
        @click.command("inspect")
        def command() -> None:
            raise error

        module = type(sys)("lucid.cli.inspect")
        module.command = command
        monkeypatch.setitem(sys.modules, "lucid.cli.inspect", module)

    return install


# --- the group -------------------------------------------------------------------------------


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"lucid {lucid.__version__}\n")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(option: str) -> None:
    result = run(option)
    assert result.exit_code == 0
    for name, purpose in COMMANDS.items():
        assert name in result.stdout
        assert purpose in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: lucid {name} ")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name} has no help"


def test_help_is_fast_because_it_loads_nothing_heavy() -> None:
    calls = "".join(f"help_of({name!r})\n" for name in COMMANDS)
    code = (
        "import sys\n"
        "from lucid.cli import main\n"
        "def help_of(name):\n"
        "    try:\n        main([name, '--help'])\n"
        "    except SystemExit:\n        pass\n"
        f"{calls}"
        "print(sorted({'torch', 'matplotlib', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evalute"], "no command 'evalute'; did you mean 'evaluate'?; see 'lucid --help'"),
        (["xyz"], "no command 'xyz'; one of audit, train,"),
        (["--verison"], "no such option '--verison'"),
        (["predict"], "missing argument 'CHECKPOINT'; see 'lucid predict --help'"),
        (["predict", "m", "i", "--top", "0"], "0 is not in the range"),
        (["predict", "m", "i", "--tpo", "1"], "'--tpo'"),
        (["evaluate", "m", "d", "--split", "dev"], "'dev' is not one of"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert_one_line(result)


def assert_one_line(result: Result) -> None:
    assert result.stdout == ""
    assert result.stderr.startswith("lucid: error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "kind",
    [
        CheckpointError,
        ConfigError,
        ImageError,
        LucidError,
        MissingDependencyError,
        OutputError,
        ShapeError,
        TrainingError,
    ],
)
def test_bad_input_is_one_line_and_2(failing, kind: type[LucidError]) -> None:
    failing(kind("it is\nbroken \x1b[31m"))
    result = run("inspect")
    assert result.exit_code == 2
    assert result.stderr == "lucid: error: it is\\nbroken \\x1b[31m\n"


def test_our_failure_is_one_line_and_1_and_leaves_a_traceback(
    failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(RuntimeError("boom\nbang"))
    result = run("inspect")
    assert result.exit_code == 1
    assert "a failure of lucid, not yours: RuntimeError: boom\\nbang" in result.stderr
    assert_one_line(result)
    (written,) = tmp_path.iterdir()
    assert str(written) in result.stderr
    assert "Traceback" in written.read_text()


def test_our_failure_without_a_place_for_the_traceback(
    failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    failing(RuntimeError("boom"))
    result = run("inspect")
    assert result.exit_code == 1
    assert "run it again with 'lucid --debug'" in result.stderr
    assert_one_line(result)


@pytest.mark.parametrize(("arguments", "debug"), [(["--debug"], ""), ([], "1")])
def test_debug_shows_the_traceback(failing, arguments: list[str], debug: str) -> None:
    failing(ConfigError("bad"))
    result = run(*arguments, "inspect", LUCID_DEBUG=debug)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("lucid: error: bad\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "stopped by Ctrl-C"),
        (KeyboardInterrupt("go on with --resume"), "go on with --resume"),
        (click.Abort(), "stopped by Ctrl-C"),
    ],
)
def test_an_interrupt_is_130(failing, error: BaseException, words: str) -> None:
    failing(error)
    result = run("inspect")
    assert result.exit_code == 130
    assert result.stderr.strip() == f"lucid: {words}"


# --- as a process ----------------------------------------------------------------------------


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "lucid", *map(str, arguments)],
        capture_output=True,
        check=False,
        **options,
    )


def test_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    assert process("--version").returncode == 0
    result = process("predict", tmp_path / "none.safetensors", tmp_path)
    assert result.returncode == 2
    assert result.stdout == b""
    assert result.stderr.startswith(b"lucid: error: ")
    assert result.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "lucid", "--help"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert result.stderr == b""
    assert result.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "mobilenet", "--json"]])
def test_a_full_disk_is_no_failure_of_ours(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "lucid", *arguments], stdout=full, stderr=subprocess.PIPE
        )
    assert result.returncode == 2
    expected = b"lucid: error: the output: no space is left; make room or write elsewhere\n"
    assert result.stderr == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_reaches_the_shell(checkpoint: Path) -> None:
    """While a command waits for standard input."""
    code = (
        "import os, signal, threading\n"
        "from lucid.cli import main\n"
        "import lucid.classifier\n"  # so that the command itself starts in no time
        "threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"main(['predict', {str(checkpoint)!r}, '-'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.read().strip() == b"lucid: stopped by Ctrl-C"
        assert waiting.wait(timeout=60) == 130


# --- predict ---------------------------------------------------------------------------------


def test_predict_prints_a_table(checkpoint: Path, data: Path) -> None:
    result = run("predict", checkpoint, data / "blue" / "0.png")
    assert result.exit_code == 0, result.output
    header, first, *others = result.stdout.splitlines()
    assert header.split() == ["image", "label", "probability"]
    assert first.split()[:2] == [str(data / "blue" / "0.png"), "blue"]
    assert float(first.split()[2].rstrip("%")) > 50
    assert len(others) == 2


def test_predict_searches_folders(checkpoint: Path, data: Path) -> None:
    result = run("predict", checkpoint, data, "--json", "--top", "1")
    found = json.loads(result.stdout)
    assert [one["source"] for one in found] == [str(path) for path in sorted(data.rglob("*.png"))]
    for one in found:
        assert [label["label"] for label in one["labels"]] == [Path(one["source"]).parent.name]
        assert one["error"] is one["explanation"] is None


def test_predict_prints_csv(checkpoint: Path, data: Path) -> None:
    result = run("predict", checkpoint, data / "green" / "1.png", "--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert rows[0]["label"] == "green"
    assert float(rows[0]["probability"]) > float(rows[1]["probability"]) > 0


def test_csv_holds_any_name(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    names = ('a, "b"', "<i>é; =1+1</i>", "[red]バラ")
    odd = replace(read_checkpoint(checkpoint), class_names=names)
    write_checkpoint(tmp_path / "odd.safetensors", odd)
    image = shutil.copy(data / "amber" / "0.png", tmp_path / '1, "ü"\x1b[31m.png')
    result = run("predict", tmp_path / "odd.safetensors", image, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["label"] for row in rows} == set(names)
    assert {row["source"] for row in rows} == {str(image)}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_csv_can_not_steer_the_terminal(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    image = shutil.copy(data / "amber" / "0.png", tmp_path / "\x1b[31mred.png")
    terminal, end = os.openpty()
    code = subprocess.call(
        [sys.executable, "-m", "lucid", "predict", checkpoint, image, "--csv"],
        stdout=end,
        stderr=subprocess.DEVNULL,
    )
    os.close(end)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert code == 0
    assert b"\x1b" not in shown
    assert rb"\x1b[31mred.png" in shown


def test_predict_reads_standard_input(checkpoint: Path, data: Path) -> None:
    content = (data / "amber" / "2.png").read_bytes()
    (found,) = json.loads(run("predict", checkpoint, "-", "--json", stdin=content).stdout)
    assert found["source"] == "<stdin>"
    assert found["labels"][0]["label"] == "amber"


def test_predict_of_an_empty_standard_input(checkpoint: Path) -> None:
    result = run("predict", checkpoint, "-", "--json", stdin=b"")
    assert result.exit_code == 2
    assert "<stdin>: the file is empty" in json.loads(result.stdout)[0]["error"]


@pytest.mark.parametrize("layout", [None, "--json", "--csv"])
def test_one_corrupt_image_among_many(
    checkpoint: Path, data: Path, tmp_path: Path, layout: str | None
) -> None:
    folder = shutil.copytree(data, tmp_path / "photos")
    (folder / "blue" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    result = run("predict", checkpoint, folder, "--top", "1", *filter(None, [layout]))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"lucid: error: {folder / 'blue' / '3.png'}: damaged")
    assert "1 of 18 images could not be read" in result.stderr
    if layout == "--json":
        answers = json.loads(result.stdout)
        assert [one["error"] is None for one in answers].count(False) == 1
        assert len(answers) == 18
    elif layout == "--csv":
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert len(rows) == 18
        (bad,) = (row for row in rows if row["error"])
        assert bad["source"].endswith("3.png")
        assert bad["label"] == bad["probability"] == ""
    else:
        assert len(result.stdout.splitlines()) == 18  # a header and 17 images


@pytest.mark.parametrize("name", ["none.jpg", "text.jpg"])
def test_predict_of_no_image(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    result = run("predict", checkpoint, tmp_path / name)
    assert result.exit_code == 2
    assert name in result.stderr


def test_no_prediction_no_table(checkpoint: Path, tmp_path: Path) -> None:
    assert run("predict", checkpoint, tmp_path / "none.jpg").stdout == ""


def test_an_empty_word_is_not_the_current_folder(checkpoint: Path) -> None:
    result = run("predict", checkpoint, "")
    assert result.exit_code == 2
    assert "can't be an empty word" in result.stderr
    assert_one_line(result)


def test_predict_of_a_folder_without_pictures(checkpoint: Path, tmp_path: Path) -> None:
    result = run("predict", checkpoint, tmp_path)
    assert result.exit_code == 2
    assert "no pictures in it" in result.stderr
    assert_one_line(result)


def test_predict_with_another_programs_file(tmp_path: Path, data: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    result = run("predict", tmp_path / "model.pt", data)
    assert result.exit_code == 2
    assert "model.pt" in result.stderr
    assert_one_line(result)


def test_file_names_can_not_steer_the_terminal(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copy(data / "blue" / "0.png", tmp_path / "\x1b[31m[bold]red.png")
    (tmp_path / "\x1b[31mbad.png").write_text("no picture")
    result = run("predict", checkpoint, tmp_path)
    assert "\x1b" not in result.output
    assert "\\x1b[31m[bold]red.png" in result.stdout
    assert "\\x1b[31mbad.png" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("layout", [[], ["--json"], ["--csv"]])
def test_file_names_may_be_no_text(
    checkpoint: Path, data: Path, tmp_path: Path, layout: list[str]
) -> None:
    shutil.copy(data / "blue" / "0.png", os.fsencode(tmp_path) + b"/\xff\xe9.png")
    result = process("predict", checkpoint, tmp_path, *layout)
    assert result.returncode == 0, result.stderr
    assert b"udcff" in result.stdout


# --- predict --explain -----------------------------------------------------------------------


def test_explanations_get_names_of_their_own(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """Every class folder has a 0.png; a file called 0-2.png must keep its place too."""
    folder = shutil.copytree(data, tmp_path / "photos")
    shutil.copy(data / "blue" / "0.png", folder / "green" / "0-2.png")
    out = tmp_path / "maps"
    result = run("predict", checkpoint, folder, "--explain", out, "--json")
    assert result.exit_code == 0, result.output
    written = [Path(one["explanation"]) for one in json.loads(result.stdout)]
    assert len(set(written)) == 19
    assert sorted(written) == sorted(out.iterdir())
    with Image.open(written[0]) as image:
        assert image.size == (224, 224)


def test_explanations_never_replace_an_input(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    image = shutil.copy(data / "blue" / "0.png", tmp_path / "Photo.png")
    before = image.read_bytes()
    for _ in range(2):  # the second time its own earlier answer is there
        result = run("predict", checkpoint, image, "--explain", tmp_path)
        assert result.exit_code == 0, result.output
        assert image.read_bytes() == before
        assert {path.name for path in tmp_path.iterdir()} == {"Photo.png", "Photo-2.png"}


def test_explanations_of_what_can_be_read(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    source = data / "blue" / "0.png"
    result = run("predict", checkpoint, "-", source, "--explain", out, stdin=b"no picture")
    assert result.exit_code == 2
    assert [path.name for path in out.iterdir()] == ["0.png"]
    assert str(out / "0.png") in result.stdout


def test_a_map_of_one_cell_is_a_warning(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    result = run("predict", checkpoint, data, "--explain", tmp_path)
    assert result.exit_code == 0
    assert result.stderr.startswith("lucid: warning: at resolution 32 a map is a single cell")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option"), [("predict", "--explain"), ("evaluate", "--report")]
)
def test_a_place_that_can_not_be_written_is_found_first(
    checkpoint: Path, data: Path, tmp_path: Path, command: str, option: str
) -> None:
    (tmp_path / "file").touch()
    result = run(command, checkpoint, data, option, tmp_path / "file" / "maps")
    assert result.exit_code == 2
    assert_one_line(result)


@pytest.mark.parametrize(
    ("package", "options"), [("sklearn", []), ("matplotlib", ["--report", "report.html"])]
)
def test_a_missing_package_is_found_before_the_images_are_read(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    options: list[str],
) -> None:
    from lucid.prediction import Predictor

    def read(*_: object) -> None:
        raise AssertionError("an image was read")

    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(Predictor, "classify", read)
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", checkpoint, data, *options)
    assert result.exit_code == 2
    assert f"this needs {package}, which is not installed" in result.stderr


# --- evaluate --------------------------------------------------------------------------------


def test_evaluate_prints_tables(checkpoint: Path, data: Path) -> None:
    result = run("evaluate", checkpoint, data)
    assert result.exit_code == 0, result.output
    assert result.stderr == "lucid: measuring 18 images, all of the data\n"
    assert "top-1              100.0%  95% interval 82.4% to 100.0%" in result.stdout
    assert "amber     100.0%  100.0%  100.0%       6" in result.stdout


def test_evaluate_prints_json(checkpoint: Path, data: Path) -> None:
    found = json.loads(run("evaluate", checkpoint, data, "--json").stdout)
    assert found["checkpoint"] == str(checkpoint)
    assert found["part"] == "all of the data"
    assert found["metrics"]["top1"]["value"] == 1
    assert found["metrics"]["confusion"] == [[6, 0, 0], [0, 6, 0], [0, 0, 6]]
    assert found["mistakes"] == found["unreadable"] == found["unseen_classes"] == []


def test_evaluate_tells_what_it_left_out(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data / "blue", folder / "blue")
    shutil.copytree(data / "green", folder / "green")
    (folder / "blue" / "3.png").write_bytes(b"damaged")
    (folder / "blue" / "4.png").rename(folder / "green" / "wrong.png")
    result = run("evaluate", checkpoint, folder)
    assert result.exit_code == 0
    assert "lucid: warning: the data has no picture of 'amber'" in result.stderr
    assert f"lucid: warning: left out: {folder / 'blue' / '3.png'}" in result.stderr
    assert str(folder / "green" / "wrong.png") in result.stdout


def test_evaluate_writes_a_report(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", checkpoint, data, "--report", "report.html")
    assert result.exit_code == 0, result.output
    assert "Evaluation of model.safetensors" in Path("report.html").read_text()


def test_a_foreign_log_beside_the_checkpoint_is_a_warning(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / "log.csv").write_text("when,what\nnow,nothing\n")
    report = tmp_path / "report.html"
    result = run("evaluate", tmp_path / checkpoint.name, data, "--report", report)
    assert result.exit_code == 0
    assert "no training log" in result.stderr
    assert report.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.safetensors", "data"], "none.safetensors"),
        (["model.safetensors", "none"], "no such file or folder"),
        (["model.safetensors", "data", "--split", "test"], "no test part"),
        (["model.safetensors", "foreign"], "does not know the data's"),
        (["model.safetensors", "empty"], "no pictures in it"),
    ],
)
def test_evaluate_refuses_bad_input(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, "model.safetensors")
    shutil.copytree(data, "data")
    shutil.copytree(data / "blue", "foreign/rose")
    shutil.copytree(data / "blue", "foreign/blue")
    Path("empty").mkdir()
    result = run("evaluate", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert_one_line(result)
