"""The store of an output path: a folder, or a bucket."""

import re

from models.checkpoint.url_secrets import has_secret
from pipelines.errors import PlanError
from pipelines.io.local import LocalStore
from pipelines.io.outputs import Store
from pipelines.job import OutputSpec


def open_store(spec: OutputSpec) -> Store:
    """The store of a job's output; makes and reads nothing yet.

    Raises:
        PlanError: the path is a URL of a kind that is not supported.
    """
    if re.search(r"://[^/@]*@", spec.path) or has_secret(spec.path):
        raise PlanError(
            "the path of the output holds a user name, a password or a signature; give them in output.storage_options instead",
            place="output.path",
        )
    path = spec.path.removeprefix("file://")
    scheme = re.match(r"([a-z0-9+.-]+)://", path, re.IGNORECASE)
    if scheme is None:
        return LocalStore.at(path)
    if scheme[1].lower() in ("s3", "s3a"):
        from pipelines.io.s3 import S3Store  # fsspec's loop takes a while to import

        return S3Store(url="s3://" + path.split("://", 1)[1].rstrip("/"), options=spec.storage_options)
    raise PlanError(
        f"{path!r} is a {scheme[1]}:// URL; results can be written to a folder (also a shared "
        "one) and to s3://, whose conditional writes keep two runs apart",
        place="output.path",
    )
