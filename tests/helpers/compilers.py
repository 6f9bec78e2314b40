"""What the tests of compiled kernels need."""

import shutil

import pytest

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
