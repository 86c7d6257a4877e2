"""The tests. Tiny models compute for microseconds: threads that wait longer for another shall sleep."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when llama.cpp is loaded; else about a millisecond
