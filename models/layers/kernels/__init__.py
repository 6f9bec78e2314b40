"""Products and kernels of libraries, and our own compiled ones, each tried against plain torch before it is used.

`products`, `attention_kernels`, `quantized_codes` hand them out; `compiled` says whether ours are used.
"""
