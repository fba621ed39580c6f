"""Sizes and tolerances that several kernels share."""

CACHE_LINE = 64  # bytes; rows of byte codes begin at one
FLOAT_LANES = 16  # partial sums of a float32 inner product, whatever the processor has
OVERSAMPLE = 4  # buffers hold this multiple of the wanted rows before the best are selected
ROUNDING_MARGIN = 1.5  # of a byte code's step, whose error has a deviation of 1 / sqrt(12): 5.2 deviations
COSINE, IP, L2 = 0, 1, 2  # metrics in compiled loops
METRICS = {"COSINE": COSINE, "IP": IP, "L2": L2}
EPS = 1e-30  # the shortest length that a query is divided by
