"""Products and kernels of libraries, each tried against plain torch before it is used."""
