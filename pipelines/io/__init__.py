"""Bytes from and to wherever files are: local folders, S3 and other stores."""
