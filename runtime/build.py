"""Turn the Python text of kernels into machine code, once: `compile_kernels([KernelSource(name, text), ...])`.

A kernel is a Python function in a file of its own (see docs/dev/architecture.md). Its key is the hash of the text and
of everything else that shapes the code: versions, processor, helper modules. The same key is the same kernel, in this
process (a dictionary) and on disk, where two files lie in `cache_dir()/fingerprint/`: `name_key.py`, to be read and
stepped through, and `name_key.o`, object code that llvmlite alone can load. So a process that finds all its kernels
never imports Numba.

The cache can only make things faster: a file that is damaged, missing, or cannot be written means compiling in memory
(with one warning when writing fails), never an error and never other code: each object carries the hash of its
content.

    [kernel] = compile_kernels([KernelSource("add", text)])
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(args_address, 0, extent, 0)

With `NUMBA_DISABLE_JIT=1` nothing is compiled: a kernel's address is that of its Python function.

Settings: `TINYTORCH_CACHE` (a folder), `TINYTORCH_ISA` ("native", "avx2" or "generic"), `TINYTORCH_DEBUG` (2: what is
compiled, and how long it takes; 4: its text).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import llvmlite.binding as llvm

from tinytorch.ir.errors import SettingError
from tinytorch.ir.files import write_atomically

MAGIC = b"tinytorch object 1\n"
ENTRY = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)  # void kernel(int64 args, int64 lo, int64 hi, int64 slot)
# Their source is part of every kernel.
HELPERS = ("codegen.py", "lowlevel.py", "convert.py", "atomics.py", "vecmath.py", "scalars.py", "microkernel.py",
           "packed_tile.py")
CPU_OF_ISA = {"avx2": "x86-64-v3", "generic": "x86-64"}
AVX2_FEATURES = frozenset({
    "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "avx", "avx2", "bmi", "bmi2", "f16c", "fma",
    "lzcnt", "movbe", "xsave",
})


@dataclass(frozen=True)
class KernelSource:
    """The text of a whole module that defines the function `name`."""

    name: str
    text: str


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel: `address` of `void kernel(int64 args, int64 lo, int64 hi, int64 slot)`, valid for good."""

    name: str
    key: str
    path: Path
    address: int


@dataclass
class Stats:
    """What `compile_kernels` did in this process."""

    compiled: int = 0
    loaded: int = 0  # from the disk
    found: int = 0  # in memory
    seconds: float = 0.0  # in all
    compiling: float = 0.0  # of them
    linking: float = 0.0


_lock = threading.RLock()
_stats = Stats()
_kernels: dict[str, Kernel] = {}
_callbacks: list[Callable[..., None]] = []  # what NUMBA_DISABLE_JIT=1 runs; ctypes does not keep them alive


def _forget_lock() -> None:
    global _lock
    _lock = threading.RLock()  # in a forked child, a thread that held it does not exist


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def stats() -> Stats:
    """A copy of the counters; take two and subtract."""
    with _lock:
        return Stats(*(getattr(_stats, field.name) for field in fields(Stats)))


# The processor

@functools.cache
def isa() -> str:
    """The instruction set this process generates for, from `TINYTORCH_ISA`; fixed at its first use."""
    chosen = os.environ.get("TINYTORCH_ISA") or "native"
    if chosen not in ("native", *CPU_OF_ISA):
        raise SettingError(f"TINYTORCH_ISA={chosen!r}: expected native, avx2 or generic; unset it for native")
    if chosen == "native" or platform.machine() not in ("x86_64", "AMD64"):
        return "native"
    if chosen == "avx2" and not _host_features().get("avx2"):
        raise ValueError("TINYTORCH_ISA=avx2: this processor has no AVX2; try TINYTORCH_ISA=generic")
    return chosen


@functools.cache
def _host_features() -> llvm.FeatureMap:
    try:
        return llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on every processor
        return llvm.FeatureMap()


@functools.cache
def features() -> frozenset[str]:
    """LLVM's names of the processor features that kernels may use."""
    host = frozenset(name for name, present in _host_features().items() if present)
    return host & {"native": host, "avx2": AVX2_FEATURES, "generic": frozenset({"sse", "sse2"})}[isa()]


def has(feature: str) -> bool:
    """May kernels use this processor feature (LLVM's name: "avx512f", "fma", "avx512vnni", "neon", ...)?"""
    return feature in features()


def vector_bits() -> int:
    """The width of the vector registers that kernels may use: 512, 256 or 128."""
    return 512 if has("avx512f") else 256 if has("avx2") else 128


def target_machine() -> llvm.TargetMachine:
    """LLVM's description of the processor we generate for."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    native = isa() == "native"
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name() if native else CPU_OF_ISA[isa()],
        features=_host_features().flatten() if native else "",
        opt=3, reloc="static" if has("sse2") else "default", codemodel="jitdefault", jit=True)


@functools.cache
def fingerprint() -> str:
    """The hash of everything besides its text that shapes a kernel's code."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    versions = (*(importlib.metadata.version(package) for package in ("numba", "llvmlite")), sys.version_info[:2])
    for fact in (*versions, llvm.get_process_triple(), llvm.get_host_cpu_name(), isa(), sorted(features())):
        digest.update(repr(fact).encode())
    for helper in HELPERS:
        digest.update((here / helper).read_bytes() if (here / helper).exists() else b"none")
    return digest.hexdigest()


NUMBERED = re.compile(r"\b(?:t|v|c|acc)\d+\b")  # names that emitters give to local variables, and to nothing else


def kernel_key(source: KernelSource) -> str:
    """The name of a kernel's code: equal keys mean equal code.

    How local variables are numbered, and what the docstring says of the graph, is not code.
    """
    numbers: dict[str, str] = {}
    code = source.text.split('"""', 2)[-1] if source.text.startswith('"""') else source.text
    text = NUMBERED.sub(lambda name: numbers.setdefault(name[0], f"${len(numbers)}"), code)
    return hashlib.sha256(f"{fingerprint()}\n{source.name}\n{text}".encode()).hexdigest()


# The folder

def cache_dir() -> Path:
    """The folder of compiled kernels: `TINYTORCH_CACHE`, read at each call, else the user's cache folder."""
    chosen = os.environ.get("TINYTORCH_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs
    return platformdirs.user_cache_path("tinytorch", appauthor=False)


def kernel_dir() -> Path:
    """The part of the cache that fits this machine, these versions and these settings."""
    return cache_dir() / fingerprint()[:12]


def cache_size() -> int:
    """Bytes in the cache folder."""
    total = 0
    for path in cache_dir().rglob("*"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            total += path.stat().st_size if path.is_file() else 0
    return total


def clear_cache() -> None:
    """Delete the compiled kernels on disk, for all machines and versions; those that are loaded stay usable."""
    for folder in cache_dir().glob("[0-9a-f]" * 12):
        shutil.rmtree(folder, ignore_errors=True)


def write_cached(path: Path, content: bytes) -> bool:
    """Put a file into the cache, whole or not at all. Returns False, after one warning, if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        _warn_unwritable(error)
        return False
    return True


_warned = False


def _warn_unwritable(error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"the kernel cache {cache_dir()} cannot be written ({error}), so each process compiles its "
                      "kernels anew. Make room, or set TINYTORCH_CACHE to a folder that can be written.",
                      RuntimeWarning, stacklevel=2)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tinytorch-kernels-")  # goes with the process


def _seal(key: str, code: bytes) -> bytes:
    return MAGIC + hashlib.sha256(key.encode() + code).digest() + code


def _read_object(path: Path, key: str) -> bytes | None:
    """The object code of a cache file; None unless it is that of `key` and every byte is as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[len(MAGIC) + 32:]
    return code if content == _seal(key, code) else None


# Kernels

def compile_kernels(sources: Iterable[KernelSource]) -> list[Kernel]:
    """The kernels of these sources, in their order, each found in memory, loaded from the cache, or compiled.

    Raises Numba's errors for a text that does not compile, with a note that names the file.
    """
    start = time.perf_counter()
    with _lock:
        wanted = [(kernel_key(source), source) for source in sources]
        missing = {key: source for key, source in wanted if key not in _kernels}
        _stats.found += len(wanted) - len(missing)
        if interpreted():
            _kernels.update({key: _interpret(key, source) for key, source in missing.items()})
        else:
            _load(_find_or_compile(missing))
        _stats.seconds += time.perf_counter() - start
        return [_kernels[key] for key, _ in wanted]


def interpreted() -> bool:
    """Are kernels run as plain Python (`NUMBA_DISABLE_JIT=1`), to step through them?"""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _symbol(name: str, key: str) -> str:
    return f"{name[:80]}_{key[:12]}"


def _place(key: str, source: KernelSource) -> tuple[Path, str]:
    """The file in which the source can be read, and its text."""
    text = f"# Kernel {source.name}, compiled by tinytorch for {isa()}, {vector_bits()} bit vectors.\n{source.text}"
    path = kernel_dir() / f"{_symbol(source.name, key)}.py"
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(text.encode()):
            return path, text
    if not write_cached(path, text.encode()):
        with contextlib.suppress(OSError):  # then there is no disk to write to: nothing to be read, but all works
            path = Path(_scratch().name) / path.name
            path.write_text(text)
    return path, text


def load_function(name: str, module_name: str, text: str, path: Path) -> Callable[..., None]:
    """The Python function `name` of a kernel's text, from a module that debuggers and tracebacks find at `path`."""
    module = types.ModuleType(f"tinytorch_kernels.{module_name}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(text, str(path), "exec"), module.__dict__)  # our own text, as just made, never a file read back
    function: Callable[..., None] = getattr(module, name)
    return function


def _find_or_compile(missing: Mapping[str, KernelSource]) -> list[tuple[str, KernelSource, Path, bytes]]:
    """The object code of these kernels, from the cache, or compiled and put there."""
    codes: dict[str, bytes] = {}
    places = {key: _place(key, source) for key, source in missing.items()}
    for key, source in missing.items():
        code = _read_object(_object_path(key, source), key)
        if code is not None:
            codes[key] = code
    _stats.loaded += len(codes)
    if len(codes) < len(missing):
        codes |= _compile({key: source for key, source in missing.items() if key not in codes}, places)
    return [(key, source, places[key][0], codes[key]) for key, source in missing.items()]


def _compile(missing: Mapping[str, KernelSource], places: Mapping[str, tuple[Path, str]]) -> dict[str, bytes]:
    from .crew import Job, compile_all  # leads to Numba, which a process that finds its kernels must not pay for

    start = last = time.perf_counter()
    codes: dict[str, bytes] = {}
    for job, code in compile_all(Job(key, source.name, _symbol(source.name, key), places[key][1], places[key][0])
                                 for key, source in missing.items()):
        codes[job.key] = code
        write_cached(_object_path(job.key, missing[job.key]), _seal(job.key, code))
        _stats.compiled += 1
        _debug_compiled(missing[job.key], job.path, time.perf_counter() - last)
        last = time.perf_counter()
    _stats.compiling += last - start
    return codes


def _object_path(key: str, source: KernelSource) -> Path:
    return kernel_dir() / f"{_symbol(source.name, key)}.o"


def _debug_compiled(source: KernelSource, path: Path, seconds: float) -> None:
    level = int(os.environ.get("TINYTORCH_DEBUG") or 0)
    if level >= 2:
        print(f"compiled {source.name} in {seconds * 1e3:.0f} ms: {path}", file=sys.stderr)
    if level >= 4:
        print(source.text, file=sys.stderr)


def _interpret(key: str, source: KernelSource) -> Kernel:
    path, text = _place(key, source)
    callback = ENTRY(load_function(source.name, _symbol(source.name, key), text, path))
    _callbacks.append(callback)
    return Kernel(source.name, key, path, ctypes.cast(callback, ctypes.c_void_p).value or 0)


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())


def _load(objects: list[tuple[str, KernelSource, Path, bytes]]) -> None:
    """Link object code into this process. One engine for all: a kernel costs 0.06 ms, an engine more than 1 ms."""
    if not objects:
        return
    start = time.perf_counter()
    engine = _engine()
    for _, _, _, code in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    for key, source, path, _ in objects:
        address = engine.get_function_address(_symbol(source.name, key))
        assert address, f"the object code of {path} does not define {_symbol(source.name, key)}"
        _kernels[key] = Kernel(source.name, key, path, address)
    _stats.linking += time.perf_counter() - start
