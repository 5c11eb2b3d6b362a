"""Compile one kernel's text to object code: `compile_object(name, symbol, text, path)`. Imports Numba; only
`build.py` uses it.

Numba's own way ends in a JIT engine, with a wrapper that raises Python exceptions. Here Numba only types and lowers
the function to LLVM IR. We add a thin `void symbol(int64, int64, int64, int64)` that inlines it, drop the rest,
optimise once, and emit.
"""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba import types
from numba.core import compiler, cpu, registry
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock

from .build import load_function, target_machine, vector_bits

# What a finished kernel may still call: the C library, which every process has.
MATH = """exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh pow fmod
    erf erfc tgamma lgamma floor ceil trunc round rint nearbyint roundeven fma fmin fmax cbrt hypot ldexp"""
ALLOWED = frozenset({"memset", "memcpy", "memmove", "memcmp", "bzero", "clock_gettime", "sched_yield"}).union(
    *({name, name + "f"} for name in MATH.split()))


class _Library(CPUCodeLibrary):  # type: ignore[misc]
    """Numba's container of IR, without its optimiser: `compile_object` optimises once, at the end."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_specific(self) -> None:
        pass


class _Codegen(JITCPUCodegen):  # type: ignore[misc]
    _library_class = _Library

    def _add_module(self, module: Any) -> None:
        """Give no module to Numba's engine: it would generate code nobody runs."""


@functools.cache
def machine() -> Any:
    """What LLVM generates for; one for all kernels."""
    return target_machine()


@functools.cache
def _target() -> tuple[Any, Any, Any]:
    """Typing context, target context and flags, shared by all kernels."""
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    # None: a kernel computes what NumPy does, op for op. Only steps of a fold may be reassociated (`scalars.plus`).
    flags.fastmath = cpu.FastMathOptions(False)
    base = registry.cpu_target
    return base.typing_context, base.target_context.subtarget(_internal_codegen=_Codegen("tinytorch")), flags


def compile_object(name: str, symbol: str, text: str, path: Path) -> bytes:
    """Object code that defines `void symbol(args, lo, hi, slot)` from the function `name` of a module's text."""
    function = load_function(name, symbol, text, path)
    try:
        return _emit(optimised(function, symbol))
    except Exception as error:
        error.add_note(f"while compiling kernel {name}: {path}")
        raise


WRAPPER = """
declare i32 @"{inner}"(ptr, ptr, i64, i64, i64, i64)
define void @"{symbol}"(i64 %args, i64 %lo, i64 %hi, i64 %slot) #0 {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @"{inner}"(ptr %result, ptr %error, i64 %args, i64 %lo, i64 %hi, i64 %slot)
  ret void
}}
attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" }}
"""


@global_compiler_lock
def optimised(function: Any, symbol: str) -> Any:
    """The LLVM module of a kernel, optimised."""
    typing, target, flags = _target()
    result = compiler.compile_extra(typing, target, function, (types.int64,) * 4, types.void, flags, {})
    library = result.library
    module = library._final_module
    for linked in dict.fromkeys(library._linking_libraries):
        module.link_in(linked._get_module_for_linking(), preserve=True)
    wrapper = WRAPPER.format(inner=result.fndesc.llvm_func_name, symbol=symbol, bits=vector_bits())
    module.link_in(llvm.parse_assembly(wrapper))
    _hide_all_but(module, symbol)
    _optimise(module, machine())
    module.verify()
    return module


def _hide_all_but(module: Any, symbol: str) -> None:
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
            function.add_function_attribute("alwaysinline")
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"


def _optimise(module: Any, target_machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(target_machine, options)
    inline = llvm.create_new_module_pass_manager()
    inline.add_always_inliner_pass()
    inline.add_global_dead_code_eliminate_pass()
    inline.run(module, builder)
    builder.getModulePassManager().run(module, builder)


def _emit(module: Any) -> bytes:
    code: bytes = machine().emit_object(module)
    strangers = undefined_symbols(code) - ALLOWED
    if strangers:
        raise RuntimeError(
            f"its code calls {', '.join(sorted(strangers))}, which a process without Numba lacks. Kernels may not "
            "allocate, raise or touch Python objects: use the helpers of tinytorch.runtime.lowlevel.")
    return code


def undefined_symbols(code: bytes) -> set[str]:
    """The symbols a 64-bit ELF object expects from elsewhere; the empty set for other formats, which we cannot read."""
    if code[:6] != b"\x7fELF\x02\x01":
        return set()
    start, = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, start + k * size) for k in range(count)]
    found = set()
    for section in sections:
        if section[1] != 2:  # SHT_SYMTAB; its link is the section of names
            continue
        names = sections[section[6]][4]
        for at in range(section[4] + 24, section[4] + section[5], 24):
            name, _, _, where = struct.unpack_from("<IBBH", code, at)
            if where == 0:
                found.add(code[names + name:code.index(b"\0", names + name)].decode())
    return found
