"""llama.cpp, loaded so that its threads, while they wait for each other, spin for a moment only.

Between two operations of a model every thread waits for the slowest. GNU OpenMP lets them spin for some
300,000 turns first: where other programs run, the thread that all wait for is not running, because those that
wait have its processor. Sleeping soon makes answers several times
faster on a busy machine (docs/performance.md). Every module here takes `llama_cpp` from this one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SPINS", "libggml", "llama_cpp", "sleeping_soon"]

#: Turns before a thread sleeps: some tens of microseconds, longer than most waits on an idle machine.
SPINS = 1000
_SPINS_VARIABLE = "GOMP_SPINCOUNT"
#: Whoever has set one of these has decided.
_DECIDED_BY = (_SPINS_VARIABLE, "OMP_WAIT_POLICY")


@contextmanager
def sleeping_soon() -> Iterator[None]:
    """Load llama.cpp inside: GNU OpenMP reads its environment once, while it is loaded.

    Other builds of llama.cpp (without OpenMP, or with another one) are as they are.
    """
    if any(name in os.environ for name in _DECIDED_BY):
        yield
        return
    os.environ[_SPINS_VARIABLE] = str(SPINS)
    try:
        yield
    finally:
        del os.environ[_SPINS_VARIABLE]  # not for the programs that this one starts


with sleeping_soon():
    import llama_cpp
    from llama_cpp._ggml import libggml
