"""How many threads the libraries of a run start: as many as it has cores.

A library that counts the cores of the machine starts too many threads, and they wait for each other: torch takes several
times the CPU time. Where the executor holds a run to its cores (by affinity, or a CPU set), most libraries count those.
The variables say it to the others, and where a run cannot be held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

ALWAYS: Mapping[str, tuple[str, ...]] = {
    "NUMEXPR_MAX_THREADS": ("NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS"),  # numexpr/utils.py: counts the machine's cores
    "RAYON_NUM_THREADS": (),  # docs.rs/rayon-core, ThreadPoolBuilder: tokenizers, and Rust at large
    "POLARS_MAX_THREADS": (),  # docs.pola.rs, polars.thread_pool_size
    "LOKY_MAX_CPU_COUNT": (),  # loky/backend/context.py: joblib, scikit-learn
    "JULIA_NUM_THREADS": (),  # docs.julialang.org, Environment Variables
    "GOMAXPROCS": (),  # pkg.go.dev/runtime
    "NPROC": (),  # xla/pjrt/utils.cc, DefaultThreadPoolSize: JAX on CPUs
    "TF_NUM_INTRAOP_THREADS": (),  # tensorflow/core/common_runtime/local_device.cc
    "TF_NUM_INTEROP_THREADS": (),  # tensorflow/core/common_runtime/process_util.cc
    "PYTHON_CPU_COUNT": (),  # docs.python.org, Command line and environment: os.cpu_count() from 3.13 on
}
"""Variables for every run, each with the variables that a person sets for the same purpose: where one of them is set, ours
would contradict it (NumExpr prints an error when it is asked for more threads than its maximum)."""

DIVIDED: Mapping[str, tuple[str, ...]] = {
    "OMP_NUM_THREADS": (),  # OpenMP 5.2, 21.1.2; also torch, MKL, OpenBLAS, BLIS, NumExpr, Arrow and nproc(1) read it
    "NUMBA_NUM_THREADS": (),  # numba.readthedocs.io, Environment variables
    "VECLIB_MAXIMUM_THREADS": (),  # Accelerate of macOS: man Accelerate
}
"""Variables that a launcher of several processes sets for each of them, unless they are set: torchrun to 1, joblib to the
cores divided by its workers. With more than one core they would defeat that: 8 workers of 8 threads on 8 cores. So they
are set for one core, and where nothing holds the run to its cores."""


def variables(cores: int, taken: Collection[str], *, is_held: bool) -> dict[str, str]:
    """Return the variables that say how many threads to start.

    Args:
        cores: of the run; a part of a core counts as one.
        taken: names of variables that the person or the image has set. They are theirs.
        is_held: whether the run can use no other cores.
    """
    rows = ALWAYS if is_held and cores > 1 else {**ALWAYS, **DIVIDED}
    return {name: str(cores) for name, same in rows.items() if not any(other in taken for other in (name, *same))}
