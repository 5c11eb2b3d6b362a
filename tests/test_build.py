"""Kernels are compiled once, found again by everybody, and never wrong, whatever happens to the cache."""

import ast
import ctypes
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinytorch.runtime import build, crew
from tinytorch.runtime.build import Kernel, KernelSource, compile_kernels, kernel_key

HEAD = "from tinytorch.runtime.lowlevel import f32, load_f32, pointer, store_f32\n\n\n"
PROGRAM = """
import sys, numpy as np
sys.path.insert(0, {folder!r})
from test_build import scale, run
from tinytorch.runtime import build
for kernel, factor in zip(build.compile_kernels([scale(k) for k in {factors}]), {factors}):
    assert np.array_equal(run(kernel), np.arange(100, dtype="f4") * factor), factor
"""


def scale(factor: int) -> KernelSource:
    """out = x * factor, as a kernel of its own for each factor."""
    name = f"scale_{factor}"
    return KernelSource(name, HEAD + f"""def {name}(args, lo, hi, slot):
    x = pointer(args, 0)
    out = pointer(args, 1)
    for i in range(lo, hi):
        store_f32(out, i, load_f32(x, i, 0) * f32({factor}), 1)
""")


def run(kernel: Kernel) -> np.ndarray:
    """What the kernel makes of 0 .. 99."""
    x, out = np.arange(100, dtype="f4"), np.full(100, np.nan, "f4")
    args = np.array([x.ctypes.data, out.ctypes.data])
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(args.ctypes.data, 0, 100, 0)
    return out


def is_right(kernel: Kernel, factor: int) -> bool:
    return np.array_equal(run(kernel), np.arange(100, dtype="f4") * factor)


def python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process."""
    environment = os.environ | settings
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)


def program(factors: list[int]) -> str:
    return PROGRAM.format(folder=str(Path(__file__).parent), factors=factors)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cold cache, a process that has seen no kernel, and that has not warned yet."""
    monkeypatch.setenv("TINYTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_kernels", {})
    monkeypatch.setattr(build, "_engine", build.functools.cache(build._engine.__wrapped__))
    monkeypatch.setattr(build, "_warned", False)
    return tmp_path / "cache"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process as one that starts now."""
    monkeypatch.setattr(build, "_kernels", {})
    monkeypatch.setattr(build, "_engine", build.functools.cache(build._engine.__wrapped__))


@pytest.fixture
def counted() -> Callable[[], tuple[int, int, int]]:
    """(compiled, loaded, found) since the last call."""
    last = build.stats()

    def count() -> tuple[int, int, int]:
        nonlocal last
        before, last = last, build.stats()
        return last.compiled - before.compiled, last.loaded - before.loaded, last.found - before.found

    return count


Counted = Callable[[], tuple[int, int, int]]


def test_compiled_then_found_then_loaded(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = compile_kernels([scale(2), scale(3)])
    assert is_right(first, 2) and is_right(second, 3) and counted() == (2, 0, 0)
    assert compile_kernels([scale(2)]) == [first] and counted() == (0, 0, 1)
    forget(monkeypatch)
    again, new = compile_kernels([scale(3), scale(4)])
    assert is_right(again, 3) and is_right(new, 4) and counted() == (1, 1, 0)


def test_one_source_twice_in_a_call_is_one_kernel(counted: Counted) -> None:
    first, second = compile_kernels([scale(2), scale(2)])
    assert first is second and counted()[0] == 1


def numbered(first: int, factor: str = "2.5", words: str = "A kernel.") -> KernelSource:
    """out = x * factor + factor, with local variables numbered from `first` on."""
    a, b, c = (f"v{first + k}" for k in range(3))
    return KernelSource("numbered", f'''"""{words}"""\n{HEAD}def numbered(args, lo, hi, slot):
    x0 = pointer(args, 0)
    y0 = pointer(args, 1)
    c{first} = f32({factor})
    for i in range(lo, hi):
        {a} = load_f32(x0, i, 0)
        {b} = {a} * c{first}
        {c} = {b} + c{first}
        store_f32(y0, i, {c}, 1)
''')


def test_how_variables_are_numbered_makes_no_other_kernel(counted: Counted) -> None:
    first, second, third = compile_kernels([numbered(0), numbered(7), numbered(2, words="Another.\n\nv0 = x")])
    assert first is second is third and counted() == (1, 0, 2)
    assert np.array_equal(run(first), np.arange(100, dtype="f4") * np.float32(2.5) + np.float32(2.5))


def test_other_code_is_another_kernel() -> None:
    text = numbered(0).text
    changed = [text, numbered(0, factor="2.0").text, text.replace("v1 + c0", "v1 + v0"),
               text.replace("v1 + c0", "v0 + c0"), text.replace("x0, i, 0", "y0, i, 0")]
    assert len({kernel_key(KernelSource("numbered", each)) for each in changed}) == len(changed)
    assert kernel_key(KernelSource("other", text)) != kernel_key(KernelSource("numbered", text))


def test_helpers_have_no_names_like_numbered_variables() -> None:
    for helper in build.HELPERS:
        for node in ast.parse((Path(build.__file__).parent / helper).read_text()).body:
            targets = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
            names = [getattr(node, "name", ""), *targets]
            assert not any(build.NUMBERED.fullmatch(name) for name in names), (helper, names)


@pytest.fixture
def one_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers for any number of kernels, though the tests use one thread."""
    monkeypatch.setattr(crew, "helper_count", lambda jobs: 1)


@pytest.mark.usefixtures("one_helper")
def test_helpers_compile_too(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home: list[str] = []
    compile_here = crew.compile_here

    def slow(job: crew.Job) -> bytes:  # until the helper has done all others
        at_home.append(job.name)
        while waiting and len(at_home) == 1:
            time.sleep(0.01)
        return compile_here(job)

    waiting: list[object] = []
    start_helpers = crew.start_helpers

    def start(count: int, jobs: object, done: object) -> object:
        nonlocal waiting
        waiting = jobs  # type: ignore[assignment]
        return start_helpers(count, jobs, done)  # type: ignore[arg-type]

    monkeypatch.setattr(crew, "compile_here", slow)
    monkeypatch.setattr(crew, "start_helpers", start)
    kernels = compile_kernels([scale(k) for k in range(2, 7)])
    assert all(is_right(kernel, k) for k, kernel in enumerate(kernels, 2)) and counted() == (5, 0, 0)
    assert len(at_home) == 1, "the helper did nothing"


@pytest.mark.usefixtures("one_helper")
@pytest.mark.parametrize("program", [
    "raise SystemExit", "import sys; sys.stdout.buffer.write(b'nonsense')",
    "from tinytorch.runtime import crew; crew.fingerprint = lambda: 'other'; crew.serve()"])
def test_a_helper_that_fails_is_not_missed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "SERVE", program)
    first, second = compile_kernels([scale(2), scale(3)])
    assert is_right(first, 2) and is_right(second, 3)


@pytest.mark.usefixtures("one_helper")
def test_a_job_that_a_helper_took_and_lost_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "SERVE", """
import pickle, sys
from tinytorch.runtime.build import fingerprint
sys.stdout.buffer.write(pickle.dumps(fingerprint())); sys.stdout.flush()
pickle.load(sys.stdin.buffer)
""")
    kernels = compile_kernels([scale(k) for k in range(2, 12)])
    assert all(is_right(kernel, k) for k, kernel in enumerate(kernels, 2))


def test_few_kernels_and_one_thread_need_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, jobs, expected in ((1, 100, 0), (2, crew.SHARE - 1, 0), (2, 100, 1), (64, 100, crew.MOST - 1),
                                    (64, 2 * crew.SHARE, 1)):
        monkeypatch.setattr(crew, "get_num_threads", lambda threads=threads: threads)
        assert crew.helper_count(jobs) == expected, (threads, jobs)


def test_the_source_is_a_readable_file_that_runs(fresh: Path) -> None:
    [kernel] = compile_kernels([scale(5)])
    assert kernel.path.is_relative_to(fresh) and scale(5).text in kernel.path.read_text()
    ran = python(f"exec(open({str(kernel.path)!r}).read()); print(scale_5.__name__)", NUMBA_DISABLE_JIT="1")
    assert ran.stdout == "scale_5\n", ran.stderr


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", "truncate", "flip"])
def test_damaged_object_is_compiled_anew(
    damage: bytes | str, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    [kernel] = compile_kernels([scale(2)])
    path = kernel.path.with_suffix(".o")
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        del content[-1:]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(damage if isinstance(damage, bytes) else content)
    counted()
    forget(monkeypatch)
    assert is_right(compile_kernels([scale(2)])[0], 2) and counted() == (1, 0, 0)
    forget(monkeypatch)
    assert is_right(compile_kernels([scale(2)])[0], 2) and counted() == (0, 1, 0), "the damaged file was not replaced"


def test_object_of_another_kernel_is_not_taken(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = compile_kernels([scale(2), scale(3)])
    first.path.with_suffix(".o").write_bytes(second.path.with_suffix(".o").read_bytes())
    counted()
    forget(monkeypatch)
    assert is_right(compile_kernels([scale(2)])[0], 2) and counted() == (1, 0, 0)


def test_a_lost_source_file_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    [kernel] = compile_kernels([scale(2)])
    kernel.path.unlink()
    forget(monkeypatch)
    assert scale(2).text in compile_kernels([scale(2)])[0].path.read_text()


def unwritable_replace(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fault", ["file in place of the folder", "no space", "read-only"])
def test_unwritable_cache_warns_once_and_works(fault: str, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "file in place of the folder":
        fresh.write_text("in the way")
    elif fault == "no space":
        monkeypatch.setattr(build.os, "replace", unwritable_replace)
    else:  # not by mode: root may write anywhere
        monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.warns(RuntimeWarning, match="TINYTORCH_CACHE") as warned:
        first, second = compile_kernels([scale(2), scale(3)])
    assert len(warned) == 1 and is_right(first, 2) and is_right(second, 3)
    assert not first.path.is_relative_to(fresh) and scale(2).text in first.path.read_text()
    left = [path for path in fresh.rglob("*") if path.is_file()] if fresh.is_dir() else []
    assert not left, "half a file was left behind"


def test_two_processes_fill_one_cold_cache(fresh: Path) -> None:
    factors = [2, 3, 4]
    command = [sys.executable, "-c", program(factors)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    for process in both:
        assert process.communicate(timeout=100)[1] == "" and process.returncode == 0
    names = sorted(path.name for path in fresh.rglob("*") if path.is_file())
    assert len(names) == 6 and not any(name.startswith(".") for name in names), names


def test_warm_process_does_not_import_numba() -> None:
    compile_kernels([scale(2), scale(3)])
    code = program([2, 3]) + "assert 'numba' not in sys.modules, 'Numba was imported'\nprint(build.stats().loaded)"
    ran = python(code)
    assert ran.stdout == "2\n", ran.stderr


@pytest.mark.parametrize(("isa", "absent", "present"), [
    ("avx2", "zmm", "ymm"), pytest.param("generic", "[yz]mm", "xmm", marks=pytest.mark.slow)])
@pytest.mark.skipif(not build.has("avx2"), reason="this processor has no AVX2")
def test_instruction_set_is_obeyed(isa: str, absent: str, present: str) -> None:
    code = program([2, 3]) + """
from pathlib import Path
from tinytorch.runtime import codegen
source = scale(2)
module = codegen.optimised(build.load_function(source.name, "k", source.text, Path("k.py")), "k")
print(build.vector_bits(), codegen.machine().emit_assembly(module))
"""
    ran = python(code, TINYTORCH_ISA=isa)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith({"avx2": "256", "generic": "128"}[isa])
    assert not re.search(absent, ran.stdout) and re.search(present, ran.stdout)


def test_unknown_instruction_set_is_refused() -> None:
    ran = python("from tinytorch.runtime import build; build.vector_bits()", TINYTORCH_ISA="mmx")
    assert "expected native, avx2 or generic" in ran.stderr


def test_instruction_sets_do_not_share_kernels() -> None:
    code = "from tinytorch.runtime import build; print(build.fingerprint())"
    assert len({python(code, TINYTORCH_ISA=isa).stdout for isa in ("native", "generic")}) == 2


def test_a_kernel_that_needs_python_is_refused() -> None:
    text = "def lists(args, lo, hi, slot):\n    a = [lo]\n    a.append(hi)\n    for x in a:\n        print(x)\n"
    with pytest.raises(Exception, match=r"\S") as caught:
        compile_kernels([KernelSource("lists", text)])
    assert any("while compiling kernel lists" in note for note in caught.value.__notes__)


def test_interpreted_kernels() -> None:
    ran = python(program([2, 3]) + "\nassert build.stats().compiled == 0\nprint('ok')", NUMBA_DISABLE_JIT="1")
    assert ran.stdout == "ok\n", ran.stderr


def test_size_and_clearing(fresh: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.cache_size() == 0
    compile_kernels([scale(2)])
    (fresh / "not ours").write_text("stays")
    assert build.cache_size() > 1000
    build.clear_cache()
    assert build.cache_size() == 5
    forget(monkeypatch)
    counted()
    compile_kernels([scale(2)])
    assert counted() == (1, 0, 0)


def test_debug_says_what_is_compiled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TINYTORCH_DEBUG", "2")
    compile_kernels([scale(7)])
    assert re.search(r"compiled scale_7 in \d+ ms", capsys.readouterr().err)
    monkeypatch.setenv("TINYTORCH_DEBUG", "4")
    compile_kernels([scale(8)])
    assert "def scale_8" in capsys.readouterr().err


def test_user_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYTORCH_CACHE")
    assert build.cache_dir().name.lower() in ("tinytorch", "cache")
