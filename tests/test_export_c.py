"""C sources: they compile everywhere without a warning and give the reference's bytes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_helpers import RUNTIME, WARNINGS, c_network, deepest_stack, random_pixels
from click.testing import CliRunner, Result

from lucid import reference
from lucid.cli import main
from lucid.errors import ConfigError, MissingDependencyError, OutputError
from lucid.exporters.c import CExport, to_c
from lucid.exporters.c.boards import boards, code_bytes
from lucid.exporters.c.host import find_compiler, run
from lucid.exporters.c.source import STACK_BYTES
from lucid.network import Int8Network, write_network

STRICT = ("-std=c99", *WARNINGS)
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

VARIANTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "width 0.05": (24, "RGB", {"width_multiplier": 0.05, "num_classes": 2}),
    "width 0.1, odd": (37, "RGB", {"width_multiplier": 0.1, "num_classes": 3, "padding": "same"}),
    "width 0.25, last stride 1": (
        33,
        "RGB",
        {"width_multiplier": 0.25, "num_classes": 10, "last_stride": 1},
    ),
    "grey, relu6": (
        30,
        "L",
        {"width_multiplier": 0.1, "num_classes": 5, "activation": "relu6", "padding": "same"},
    ),
    "1000 classes, 1 pixel": (1, "RGB", {"width_multiplier": 0.05, "num_classes": 1000}),
}


def compiler(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    return name


def call(command: Sequence[str | Path], cwd: Path) -> str:
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def small() -> Int8Network:
    return c_network(20, width_multiplier=0.05, num_classes=3)


@pytest.fixture(scope="module")
def written(small: Int8Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_c(small).write(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def file(small: Int8Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "small.int8.safetensors"
    write_network(path, small)
    return path


class TestSources:
    @pytest.mark.parametrize("name", ["gcc", "clang"])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_equal_bytes(self, variant: str, name: str) -> None:
        """Without a warning, and with sanitizers that end the program at the first mistake."""
        side, color, arguments = VARIANTS[variant]
        network = c_network(side, color, **arguments)
        pixels = random_pixels(4, side, network.preprocessing.channels, seed=1)
        command = [compiler(name), *STRICT, *SANITIZERS]
        found = run(to_c(network), pixels, compiler=command)
        assert found.tobytes() == reference.run(network, pixels).tobytes()

    @pytest.mark.parametrize(
        "flags", [("-O3", "-march=native"), ("-Os",), ("-std=gnu99", "-O3", "-ffp-contract=fast")]
    )
    def test_equal_bytes_whatever_the_flags(
        self, small: Int8Network, flags: tuple[str, ...]
    ) -> None:
        """Even where the compiler may fuse a product and a sum into one operation."""
        pixels = random_pixels(4, 20, 3)
        found = run(to_c(small), pixels, compiler=[compiler("gcc"), *flags])
        assert found.tobytes() == reference.run(small, pixels).tobytes()

    @pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-freciprocal-math"])
    def test_fast_math_is_refused(self, small: Int8Network, flag: str) -> None:
        with pytest.raises(ConfigError, match="-ffast-math, also in part, changes the results"):
            run(to_c(small), random_pixels(1, 20, 3), compiler=[compiler("gcc"), flag])

    @pytest.mark.parametrize("name", ["gcc", "clang"])
    @pytest.mark.parametrize(
        ("flag", "reason"),
        [
            ("-include missing.h", r"missing\.h"),
            ("-lmissing", "missing"),
            ("-Dmain=other", "main"),
        ],
    )
    def test_says_why_compiling_fails(
        self, small: Int8Network, name: str, flag: str, reason: str
    ) -> None:
        with pytest.raises(ConfigError, match=rf"can't compile .* \(code 1\): .*({reason})"):
            run(to_c(small), random_pixels(1, 20, 3), compiler=[compiler(name), *flag.split()])

    def test_a_compiler_that_says_nothing(self, small: Int8Network) -> None:
        with pytest.raises(ConfigError, match=r"^false: can't compile the C export \(code 1\)$"):
            run(to_c(small), random_pixels(1, 20, 3), compiler=[compiler("false")])

    @pytest.mark.parametrize(("target", "kernels"), [("Cortex-M4", "DSP"), ("Cortex-M55", "MVE")])
    @pytest.mark.parametrize("order", ["little", "big"])
    def test_big_endian_cores_take_the_portable_kernels(
        self, target: str, kernels: str, order: str, tmp_path: Path
    ) -> None:
        command = TOOLCHAINS[target]
        compiler(command[0])
        macros = call([*command, f"-m{order}-endian", "-dM", "-E", RUNTIME / "kernels.h"], tmp_path)
        chosen = set(re.findall(r"^#define LUCID_(DSP|MVE|RVV) 1$", macros, re.MULTILINE))
        assert chosen == ({kernels} if order == "little" else set())

    def test_the_same_every_time(self, small: Int8Network) -> None:
        assert to_c(small).files == to_c(small).files

    def test_class_names_are_strings(self, small: Int8Network, tmp_path: Path) -> None:
        names = ('a "quoted" \\ ??/ name', "Löwe 獅子 123", "@PREFIX@ model_ lucid_")
        exported = to_c(replace(small, class_names=names))
        folder = exported.write(tmp_path / "out")
        (folder / "names.c").write_text(
            '#include <stdio.h>\n#include "model.h"\nint main(void) {\n'
            "  int k;\n  for (k = 0; k < MODEL_CLASSES; ++k) puts(model_class_names[k]);\n"
            "  return 0;\n}\n"
        )
        units = sorted(folder.glob("model*.c"))
        call([compiler("gcc"), *STRICT, "names.c", *units, "-o", "names"], folder)
        output = subprocess.run([folder / "names"], capture_output=True, check=True).stdout
        assert output.decode() == "\n".join(names) + "\n"

    def test_every_name_has_the_prefix(self, small: Int8Network, tmp_path: Path) -> None:
        folder = to_c(small, prefix="Net2").write(tmp_path / "out")
        call([compiler("gcc"), "-c", *folder.glob("Net2*.c")], tmp_path)
        symbols = call(["nm", "-g", "--defined-only", *tmp_path.glob("*.o")], tmp_path)
        names = re.findall(r"^[0-9a-f]+ [A-Z] (\w+)$", symbols, re.MULTILINE)
        assert len(names) > 10
        assert all(name.startswith("Net2_") for name in names), names
        for path in folder.rglob("*.[ch]"):
            assert not re.search("(?i)lucid_", path.read_text()), path
            assert "@" not in path.read_text(), path

    @pytest.mark.parametrize("folder", ["runtime", "templates"])
    def test_no_prefix_makes_names_collide(self, folder: str) -> None:
        """With the prefix "a", a name of ours that ends in _layer could be a_layer."""
        text = "".join(path.read_text() for path in (RUNTIME.parent / folder).glob("*.[ch]"))
        names = set(re.findall(r"\b[A-Za-z]\w*\b", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
        ours = {name for name in names if re.match("(?i)(lucid|model)_", name)}
        endings = tuple(name[name.index("_") :] for name in ours)
        assert "_layer" in endings
        assert not {name for name in names - ours if name.endswith(endings)}

    def test_example(self, written: Path, tmp_path: Path) -> None:
        """The CMake project builds, and its program finds its logits equal."""
        compiler("cmake")
        call(["cmake", "-S", written, "-B", tmp_path, "-DCMAKE_C_FLAGS=-Wall -Wextra"], tmp_path)
        call(["cmake", "--build", tmp_path], tmp_path)
        output = call([tmp_path / "model_example"], tmp_path)
        assert re.fullmatch(r"class \d, \d+\.\d%\nlogits equal those of the reference\n", output), (
            output
        )

    def test_profile(self, written: Path, tmp_path: Path) -> None:
        command = [compiler("gcc"), *STRICT, "-DMODEL_PROFILE", "-I", written]
        call([*command, *written.glob("*.c"), "-o", "profile"], tmp_path)
        output = call([tmp_path / "profile"], tmp_path)
        assert len(re.findall(r"^layer \d+: \d+ ticks$", output, re.MULTILINE)) == 29
        call([*command, "-DMODEL_TICKS=7", *written.glob("*.c"), "-o", "profile"], tmp_path)
        assert "in all: 0 ticks" in call([tmp_path / "profile"], tmp_path)

    def test_manifests(self, written: Path) -> None:
        library = json.loads((written / "library.json").read_text())
        assert library["name"] == "model"
        properties = (written / "library.properties").read_text()
        assert "name=model\n" in properties
        assert "includes=model.h\n" in properties
        assert "name: model\n" in (written / "zephyr" / "module.yml").read_text()
        zephyr = (written / "zephyr" / "CMakeLists.txt").read_text()
        assert all(path.name in zephyr for path in written.glob("model*.c"))
        assert (written / "examples" / "classify" / "classify.ino").is_file()

    def test_sketch(self, written: Path, tmp_path: Path) -> None:
        """The Arduino example is C++ that compiles, with a stand-in for Arduino's own header."""
        (tmp_path / "arduino.h").write_text(
            "struct Port { void begin(long); void print(const char*); void print(double);\n"
            "  void print(unsigned long); void println(const char*); };\n"
            "extern Port Serial; unsigned long millis(); void delay(unsigned long);\n"
        )
        sketch = written / "examples" / "classify" / "classify.ino"
        flags = ["-x", "c++", "-std=c++11", "-DARDUINO=100", "-Wall", "-Wextra", "-Werror"]
        command = [compiler("g++"), *flags, "-include", "arduino.h", "-I", written, "-c", sketch]
        call([*command, "-o", "sketch.o"], tmp_path)

    def test_two_models_and_cpp(self, small: Int8Network, tmp_path: Path) -> None:
        """One C++ program that calls two exports, each with two states at once."""
        other = c_network(15, "L", width_multiplier=0.1, num_classes=4, seed=5)
        networks = {"first": small, "second": other}
        for name, network in networks.items():
            folder = to_c(network, prefix=name).write(tmp_path / name)
            call([compiler("gcc"), *STRICT, "-c", *folder.glob(f"{name}*.c")], tmp_path)
        program = '#include <cstdio>\n#include "first.h"\n#include "second.h"\n'
        body = ""
        for name, network in networks.items():
            side, channels = network.preprocessing.resolution, network.preprocessing.channels
            pixels = random_pixels(2, side, channels, seed=9)
            (tmp_path / f"{name}.bin").write_bytes(pixels.tobytes())
            upper = name.upper()
            program += f"""
static {name}_state {name}_states[2];
static int run_{name}() {{
  static uint8_t images[2][{upper}_IMAGE_BYTES];
  static float logits[2][{upper}_CLASSES];
  std::FILE* in = std::fopen("{name}.bin", "rb");
  if (std::fread(images, sizeof images, 1, in) != 1) return 1;
  std::fclose(in);
  for (int k = 0; k < 2; ++k) {name}_begin(&{name}_states[k]);
  for (int y = 0; y < {upper}_HEIGHT; ++y) {{
    for (int k = 0; k < 2; ++k) {{
      {name}_push_row(&{name}_states[k], images[k] + y * {upper}_ROW_BYTES);
    }}
  }}
  for (int k = 0; k < 2; ++k) {name}_finish(&{name}_states[k], logits[k]);
  std::FILE* out = std::fopen("{name}.logits", "wb");
  std::fwrite(logits, sizeof logits, 1, out);
  return std::fclose(out);
}}
"""
            body += f"run_{name}() || "
        program += f"int main() {{ return {body} 0; }}\n"
        (tmp_path / "main.cpp").write_text(program)
        flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-I", "first", "-I", "second"]
        objects = list(tmp_path.glob("*.o"))
        call([compiler("g++"), *flags, "main.cpp", *objects, "-o", "both"], tmp_path)
        call([tmp_path / "both"], tmp_path)
        for name, network in networks.items():
            side, channels = network.preprocessing.resolution, network.preprocessing.channels
            expected = reference.run(network, random_pixels(2, side, channels, seed=9))
            assert (tmp_path / f"{name}.logits").read_bytes() == expected.tobytes(), name


TOOLCHAINS = {
    "gcc": ("gcc",),
    "Cortex-M0+": ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m0plus"),
    "Cortex-M3": ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m3"),
    "Cortex-M4": (
        *("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4"),
        *("-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ),
    "Cortex-M55": ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard"),
}


# What the assembly pushes, of which the compiler does not know: two_channels and spread_row, and
# many_channels and the depthwise layers, of kernels_dsp.c and kernels_mve.c.
PUSHED = {"Cortex-M4": 60, "Cortex-M55": 152}


class TestMemory:
    @pytest.mark.parametrize("target", TOOLCHAINS)
    @pytest.mark.parametrize("optimisation", ["-O1", "-O3", "-Os"])
    def test_stack_is_bounded(
        self, written: Path, target: str, optimisation: str, tmp_path: Path
    ) -> None:
        """No function's frame depends on its arguments, none calls itself, and all of it fits."""
        command = TOOLCHAINS[target]
        compiler(command[0])
        flags = ("-std=c99", optimisation, "-fcallgraph-info=su", "-c")
        call([*command, *flags, *sorted(written.glob("model*.c"))], tmp_path)
        graphs = list(tmp_path.glob("*.ci"))
        for root in ("model_classify", "model_push_row", "model_finish"):
            assert deepest_stack(graphs, root) + PUSHED.get(target, 0) <= STACK_BYTES, root

    @pytest.mark.parametrize("target", [name for name in TOOLCHAINS if name != "gcc"])
    def test_code(self, target: str, tmp_path: Path) -> None:
        """The table's bytes of code are those of the compiler; at most 12 KB with all tables."""
        command = TOOLCHAINS[target]
        compiler(command[0])
        units = [path for path in RUNTIME.glob("*.c") if path.name != "verify.c"]
        call([*command, "-std=c99", "-O3", "-c", *units], tmp_path)
        sizes = call(["arm-none-eabi-size", *tmp_path.glob("*.o")], tmp_path)
        found = sum(int(line.split()[0]) for line in sizes.splitlines()[1:])
        assert 0.8 * code_bytes()[target] <= found <= code_bytes()[target]

    def test_flash(self, small: Int8Network) -> None:
        """Beside the network's own numbers at most 12 KB, code included."""
        exported = to_c(small)
        assert exported.table_bytes + code_bytes()["Cortex-M4"] <= 12 * 1024
        assert exported.const_bytes == sum(
            layer.weights + (8 * layer.out_channels if layer.kind != "pool" else 4)
            for layer in exported.network.layers
        )


class TestFolder:
    def test_an_export_is_replaced(self, small: Int8Network, tmp_path: Path) -> None:
        folder = to_c(small, prefix="first").write(tmp_path / "out")
        to_c(small, prefix="second").write(folder)
        assert not list(folder.glob("first*"))
        assert (folder / "second.c").is_file()
        assert list(tmp_path.iterdir()) == [folder]

    @pytest.mark.parametrize("name", ["notes.txt", "model.c", "src/mine.c", "build"])
    def test_what_others_wrote_stays(self, small: Int8Network, tmp_path: Path, name: str) -> None:
        foreign = tmp_path / "out" / name
        foreign.parent.mkdir(parents=True)
        if name == "build":
            foreign.mkdir()
        else:
            foreign.write_text("mine")
        exported = to_c(small)
        with pytest.raises(OutputError, match=r"is not as an export left it"):
            exported.write(tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [name.split("/")[0]]

    def test_what_was_changed_stays(self, small: Int8Network, tmp_path: Path) -> None:
        folder = to_c(small).write(tmp_path / "out")
        (folder / "main.c").write_text("int main(void) { return 0; }")
        with pytest.raises(OutputError, match=r"main\.c is not as an export left it"):
            to_c(small).write(folder)

    @pytest.mark.parametrize("name", [".", "..", "../inner"])
    def test_the_current_folder_stays(
        self, small: Int8Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (tmp_path / "outer" / "inner").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "outer" / "inner")
        with pytest.raises(OutputError, match="is the current folder, or around it"):
            to_c(small).write(name)
        to_c(small).write("new")
        assert [path.name for path in Path.cwd().iterdir()] == ["new"]

    def test_a_file_in_the_way(self, small: Int8Network, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError, match="expected a folder"):
            to_c(small).write(tmp_path / "out")

    def test_nothing_is_left_of_a_failure(
        self, small: Int8Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        exported = to_c(small)
        folder = exported.write(tmp_path / "out")
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        monkeypatch.setattr("lucid.exporters.c.export._checksum", interrupt)
        with pytest.raises(KeyboardInterrupt):
            exported.write(tmp_path / "new")
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == [folder]
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestNames:
    @pytest.mark.parametrize("prefix", ["model", "a", "m", "verify", "Vww_96", "lucid", "x" * 32])
    def test_accepted(self, small: Int8Network, prefix: str) -> None:
        """With any, the sources are told from the example and from the program that verifies."""
        exported = to_c(small, prefix=prefix)
        assert f"{prefix}.h" in exported.files
        pixels = random_pixels(1, 20, 3)
        found = run(exported, pixels, compiler=[compiler("gcc"), "-O0"])
        assert found.tobytes() == reference.run(small, pixels).tobytes()

    @pytest.mark.parametrize(
        ("prefix", "problem"),
        [
            ("int", "keyword"),
            ("class", "keyword"),
            ("constexpr", "keyword"),
            ("", "letters, digits and underscores"),
            ("9lives", "begin with a letter"),
            ("_hidden", "begin with a letter"),
            ("a-b", "letters, digits and underscores"),
            ("näme", "letters, digits and underscores"),
            ("a\n", "letters, digits and underscores"),
            ("x" * 33, "1 to 32"),
            ("a__b", "two underscores"),
            ("a_", "two underscores"),
            ("string", "string.h"),
            ("main", "main.c"),
            ("all", "CMake"),
        ],
    )
    def test_refused(self, small: Int8Network, prefix: str, problem: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            to_c(small, prefix=prefix)


class TestBoards:
    def test_table(self) -> None:
        for name, board in boards().items():
            assert re.fullmatch("[a-z0-9.-]+", name)
            assert board.core in code_bytes(), name
            assert 16 <= board.clock_mhz <= 1000
            assert 64 <= board.flash_kib <= 2**14
            assert 20 <= board.ram_kib <= 2**12
            assert board.source.startswith("https://"), name

    def test_devices(self) -> None:
        result = invoke("devices")
        assert result.exit_code == 0
        assert all(name in result.output for name in boards())
        found = json.loads(invoke("devices", "--json").output)
        assert [board["name"] for board in found] == list(boards())

    def test_fits(self, file: Path, tmp_path: Path) -> None:
        result = invoke(
            *("export", file, "--format", "c", "--out", tmp_path / "out"),
            *("--board", "nucleo-f401re", "--json"),
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["board"]["fit"].startswith("fits ST NUCLEO-F401RE")
        assert "estimated: instructions a multiply-add counted in QEMU" in found["board"]["latency"]
        again = invoke(
            *("export", file, "--format", "c", "--out", tmp_path / "out"),
            *("--board", "nucleo-f401re", "--no-verify"),
        )
        assert f"latency: {found['board']['latency']}\n" in again.output
        (flash,) = [line for line in again.output.splitlines() if line.startswith("flash: ")]
        assert [core for core in code_bytes() if f"on {core}" in flash] == ["Cortex-M4"]

    def test_too_small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which is said before the reference computes anything."""
        monkeypatch.setattr("lucid.exporters.c.source.run", None)
        network = c_network(96, width_multiplier=0.25, num_classes=2)
        write_network(tmp_path / "large.safetensors", network)
        result = invoke(
            *("export", tmp_path / "large.safetensors", "--format", "c"),
            *("--out", tmp_path / "out", "--board", "blue-pill"),
        )
        assert result.exit_code == 2
        assert re.search(
            r"bytes of flash and [\d,]+ bytes of RAM are missing .*; width 0\.\d+ at resolution 96 "
            "would fit",
            result.stderr,
        )
        assert not (tmp_path / "out").exists()

    def test_only_rows_fit(self) -> None:
        from lucid.exporters.c.boards import Need, check_fits, find_board

        board = find_board("nucleo-g071rb")
        need = Need(flash=10_000, rows=board.ram, image=board.ram + 1)
        assert "rows are pushed" in check_fits(board, need, class_names=["a", "b"], resolution=96)

    @pytest.mark.parametrize("classes", [2, 400, 450])
    def test_what_is_advised_fits(self, classes: int) -> None:
        """By the numbers of the export itself, with tables; 450 classes leave no place for them."""
        from lucid.exporters.c.boards import Need, check_fits, find_board, need

        board = find_board("blue-pill")
        names = tuple(f"class {k}" for k in range(classes))
        with pytest.raises(ConfigError) as caught:
            check_fits(board, Need(2**30, 2**30, 2**30), class_names=names, resolution=96)
        advice = re.search(r"width ([\d.]+) at resolution (\d+) would fit", str(caught.value))
        assert (advice is None) == (classes == 450), caught.value
        if advice is None:
            return
        network = c_network(
            int(advice[2]), width_multiplier=float(advice[1]), num_classes=classes, last_stride=1
        )
        exported = to_c(replace(network, class_names=names))
        flash = exported.const_bytes + exported.table_bytes + code_bytes()[board.core]
        wanted = need(exported.plan, flash)
        assert check_fits(board, wanted, class_names=names, resolution=96).startswith("fits")

    def test_unknown(self, file: Path) -> None:
        result = invoke("export", file, "--format", "c", "--board", "nucleo-f401")
        assert result.exit_code == 2
        assert "did you mean" in result.stderr


class TestCommand:
    def test_writes_and_verifies(self, file: Path, tiny_photos: Path, tmp_path: Path) -> None:
        compiler("cc")
        out = tmp_path / "out"
        result = invoke("export", file, "--format", "c", "--out", out, "--verify", tiny_photos)
        assert result.exit_code == 0, result.output
        assert "the reference's bytes on 30 images" in result.output
        assert (out / "model.c").is_file()
        peak = [line for line in result.output.splitlines() if line.endswith("peak")]
        assert len(peak) == 1
        again = invoke("export", file, "--format", "c", "--out", out, "--prefix", "net")
        assert again.exit_code == 0, again.output
        assert (out / "net.c").is_file()

    def test_needs_no_torch(self, file: Path, tiny_photos: Path, tmp_path: Path) -> None:
        compiler("cc")
        code = (
            "import sys; sys.modules['torch'] = None; from lucid.cli import main; "
            "main(['export', '--format', 'c', *sys.argv[1:]])"
        )
        arguments = [file, "--out", tmp_path / "out", "--verify", tiny_photos]
        output = call([sys.executable, "-c", code, *arguments], tmp_path)
        assert "the reference's bytes on 30 images" in output

    def test_memory_in_json(self, file: Path, small: Int8Network, tmp_path: Path) -> None:
        result = invoke(
            "export", file, "--format", "c", "--out", tmp_path / "o", "--no-verify", "--json"
        )
        found = json.loads(result.stdout)
        exported: CExport = to_c(small)
        assert found["ram"]["in_all_by_rows"] == exported.row_ram_bytes
        assert found["flash"]["weights"] == exported.const_bytes
        assert sum(layer["peak"] for layer in found["layers"]) == 1
        for layer, written in zip(exported.network.layers, found["layers"], strict=True):
            arrays = [4] if layer.kind == "pool" else [layer.weights, *[8] * layer.out_channels]
            assert written["flash"] == sum(arrays), layer.name
        assert sum(layer["flash"] for layer in found["layers"]) == exported.const_bytes
        assert "verified" not in found

    def test_inspect_shows_the_same(self, file: Path, small: Int8Network) -> None:
        exported = to_c(small)
        plan = exported.plan
        found = json.loads(invoke("inspect", file, "--json").output)
        assert [layer["bytes_in_c"] for layer in found["layers"]] == list(plan.layer_bytes)
        flash = [layer["flash_bytes_in_c"] for layer in found["layers"]]
        assert sum(flash) == exported.const_bytes
        assert flash[0] == found["layers"][0]["output_shape"][0] * (27 + 8)
        peak = plan.layers[plan.peak].name
        assert found["totals"]["peak_in_c"] == {"name": peak, "bytes": max(plan.layer_bytes)}
        marked = [line for line in invoke("inspect", file).output.splitlines() if "peak" in line]
        assert [line.split()[0] for line in marked if line.rstrip().endswith("peak")] == [peak]

    def test_float_checkpoint(self, tmp_path: Path) -> None:
        from network_helpers import described

        from lucid.architecture import MobileNetArguments
        from lucid.network import FloatLayer, FloatNetwork, FloatPool, layers

        structure = layers(MobileNetArguments(width_multiplier=0.05, num_classes=2))
        network = FloatNetwork(
            layers=tuple(
                FloatPool(**layer.to_dict())
                if layer.kind == "pool"
                else FloatLayer(
                    **layer.to_dict(),
                    weight=np.zeros(layer.weight_shape, np.float32),
                    bias=np.zeros(layer.out_channels, np.float32),
                )
                for layer in structure
            ),
            **described(structure),
        )
        path = tmp_path / "float.safetensors"
        write_network(path, network)
        result = invoke("export", path, "--format", "c")
        assert result.exit_code == 2
        assert "lucid quantize CHECKPOINT --calibrate DATA" in result.stderr

    def test_without_a_compiler(
        self, file: Path, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        out = tmp_path / "out"
        asked = ("export", file, "--format", "c", "--out", out)
        result = invoke(*asked, "--verify", tiny_photos)
        assert result.exit_code == 2
        assert "none of cc, gcc, clang is installed" in result.stderr
        assert not out.exists()
        result = invoke(*asked)
        assert result.exit_code == 0
        assert "not verified" in result.stderr
        monkeypatch.setenv("CC", "no-such-compiler -O2")
        with pytest.raises(MissingDependencyError, match=r"\$CC, 'no-such-compiler'"):
            find_compiler()
        monkeypatch.setenv("CC", '"gcc')
        with pytest.raises(ConfigError, match=r"\$CC must be the command of a C compiler"):
            find_compiler()

    @pytest.mark.parametrize("wrong", [("--report", "a.html"), ("--precision", "float32")])
    def test_options_that_do_not_go_with_it(self, file: Path, wrong: tuple[str, ...]) -> None:
        result = invoke("export", file, "--format", "c", *wrong)
        assert result.exit_code == 2
        assert "takes one int8 network" in result.stderr

    def test_an_empty_prefix(self, file: Path, tmp_path: Path) -> None:
        asked = ("export", file, "--format", "c", "--out", tmp_path / "out", "--prefix", "")
        result = invoke(*asked)
        assert result.exit_code == 2
        assert "prefix '' must be" in result.stderr

    def test_options_that_go_with_it_only(self, file: Path) -> None:
        result = invoke("export", file, "--format", "onnx", "--prefix", "net")
        assert result.exit_code == 2
        assert "--prefix and --board are for --format c" in result.stderr
