"""Names of methods that others go by, without what it takes to run them."""

ALIGNBEAM = "alignbeam"
BEST_OF_K = "best-of-k"
