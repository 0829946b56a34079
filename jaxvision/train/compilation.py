"""Compiling steps: the persistent cache, XLA options that pay, and what compiling took."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

# XLA hands single convolutions on the CPU to a library that is 2.4 times slower than its own code;
# this leaves it the matrix products alone. Experimental in XLA: used only where it is accepted.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@cache
def compiler_options() -> dict[str, str] | None:
    """Options for `jax.jit(..., compiler_options=...)` on the default backend."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(_CPU_OPTIONS)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError as error:
        logging.getLogger(__name__).info("XLA refuses %s: %s", _CPU_OPTIONS, error)
        return None
    return dict(_CPU_OPTIONS)


def use_cache(setting: str) -> Path | None:
    """Turns the persistent compilation cache on, as `compilation_cache` says.

    Args:
      setting: a folder, "auto" (JAX_COMPILATION_CACHE_DIR, else ~/.cache/jaxvision/xla) or "off".

    Returns:
      The folder, or None if it is off.
    """
    if setting == "auto":
        setting = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/jaxvision/xla")
    folder = None if setting == "off" else Path(setting).expanduser()
    value = None if folder is None else str(folder)
    if value != jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", value)
        compilation_cache.reset_cache()  # JAX looks at the setting only once
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return folder


def shapes_of(batch: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a compiled function depends on of a batch, to be looked up by."""
    return tuple(sorted((key, value.shape) for key, value in batch.items()))


@dataclass(frozen=True)
class Compiled:
    """A compiled function and what it took."""

    call: Callable[..., Any]
    seconds: float
    flops: float


def compile_now(
    function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = (), **shardings: Any
) -> Compiled:
    """Traces and compiles `function` for arguments like these.

    Args:
      donate: positions of arguments whose memory the outputs may take over.
      shardings: `in_shardings`, `out_shardings` of `jax.jit`.
    """
    start = time.perf_counter()
    jitted = jax.jit(
        function, donate_argnums=donate, compiler_options=compiler_options(), **shardings
    )
    compiled = jitted.lower(*arguments).compile()
    cost = compiled.cost_analysis() or {}
    return Compiled(compiled, time.perf_counter() - start, float(cost.get("flops", 0.0)))
