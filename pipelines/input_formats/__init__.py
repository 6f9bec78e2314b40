"""The formats of input files, one file each: how one is planned and read. The table of them is `table.py`."""
