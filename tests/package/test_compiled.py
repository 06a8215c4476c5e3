"""What XLA compiles for the processor is kept for the next process."""

import os
import subprocess
import sys

import keras
import pytest

from finetune_tf.kernels import compiled

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not sys.platform.startswith("linux"),
    reason="only TensorFlow on Linux is told to",
)
SCRIPT = """
import finetune_tf
import tensorflow as tf
print(float(tf.function(lambda x: tf.reduce_sum(x * x), jit_compile=True)(tf.ones((3, 4)))))
"""


def run(cache, **environment) -> list:
    """Files in the cache after a process, with the times at which they were written."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
    environment = {**inherited, "XDG_CACHE_HOME": str(cache), **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "12.0"
    files = cache.glob("finetune_tf/compiled/*/*") if cache.exists() else ()
    return [(path, path.stat().st_mtime_ns) for path in files]


def test_the_next_process_finds_it(tmp_path):
    first = run(tmp_path)
    assert len(first) == 1
    assert run(tmp_path) == first
    assert run(tmp_path / "none", FINETUNE_TF_KEEP_COMPILED="0") == []


def test_a_process_does_not_take_its_parents_folder(tmp_path):
    flags = f"--tf_xla_persistent_cache_directory={tmp_path}/finetune_tf/compiled/2.1.0-0"
    assert run(tmp_path, TF_XLA_FLAGS=flags)[0][0].parent.name != "2.1.0-0"
    assert run(tmp_path / "none", TF_XLA_FLAGS=flags, FINETUNE_TF_KEEP_COMPILED="0") == []
    assert len(list(tmp_path.glob("finetune_tf/compiled/*"))) == 1


def test_where_nothing_can_be_kept(tmp_path, monkeypatch):
    """A file in the way, a name with a space, flags of the user, too new a TensorFlow."""
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    assert compiled.keep_compiled() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a b"))
    assert compiled.keep_compiled() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    assert compiled.keep_compiled() is None
    monkeypatch.delenv("TF_XLA_FLAGS")
    monkeypatch.setattr(compiled, "version", lambda name: "99.1.0")
    assert compiled.keep_compiled() is None
    assert "TF_XLA_FLAGS" not in os.environ


def test_what_was_compiled_long_ago_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST", 250)
    for i in range(5):
        (tmp_path / f"{i}.pb").write_bytes(bytes(100))
        os.utime(tmp_path / f"{i}.pb", (i, i))
    compiled._make_room(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["3.pb", "4.pb"]
