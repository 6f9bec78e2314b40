"""Kernels for processors, written here and compiled on the machine that they run on.

    library = native_library()     # None where there is no compiler; the log says why

`source/` is C++ of a few hundred lines, which a C++ compiler turns into one shared library the first time a process asks
(`build`); `library` calls it with tensors, and `models.layers.kernels.compiled` says whether it is used. Every sum in it is one
chain in one order, so a row's result is the same to the last bit whatever is computed with it, and however many threads there are.
"""
