"""All that is asked of llama.cpp."""
