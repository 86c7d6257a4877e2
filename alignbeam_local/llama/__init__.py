"""All that is asked of llama.cpp."""

from .threads import sleeping_soon

with sleeping_soon():
    import llama_cpp as llama_cpp
