"""Compiling ahead, compiler options, the persistent cache."""

import jax
import jax.numpy as jnp
import pytest

from jaxvision.train import compilation


@pytest.fixture
def restored_cache():
    before = jax.config.jax_compilation_cache_dir
    yield
    compilation.use_cache(before or "off")


def test_options_are_accepted_or_left_out(monkeypatch):
    options = compilation.compiler_options()
    assert options is None or jax.jit(lambda x: x * 2, compiler_options=options)(3) == 6
    monkeypatch.setattr(compilation, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    compilation.compiler_options.cache_clear()
    assert compilation.compiler_options() is None
    compilation.compiler_options.cache_clear()


@pytest.mark.usefixtures("restored_cache")
def test_the_cache_is_filled_where_asked_and_off_when_asked(tmp_path, monkeypatch):
    assert compilation.use_cache(str(tmp_path / "xla")) == tmp_path / "xla"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "env"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: jnp.sin(x) * 1.2345)(jnp.ones(3)).block_until_ready()
    assert list((tmp_path / "xla").iterdir())
    assert compilation.use_cache("auto") == tmp_path / "env"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: jnp.cos(x) * 1.2345)(jnp.ones(3)).block_until_ready()
    assert list((tmp_path / "env").iterdir())  # the folder of before is not kept on to
    count = len(list(tmp_path.rglob("*")))
    assert compilation.use_cache("off") is None
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: jnp.tan(x) * 1.2345)(jnp.ones(3)).block_until_ready()
    assert len(list(tmp_path.rglob("*"))) == count


def test_compiling_ahead_gives_a_function_its_seconds_and_its_cost():
    a = jnp.ones((64, 32))
    compiled = compilation.compile_now(lambda x, y: x @ y, a, a.T)
    assert compiled.seconds > 0
    assert (compiled.call(a, a.T) == 32).all()
    assert compiled.flops >= 2 * 64 * 32 * 64 or compiled.flops == 0
