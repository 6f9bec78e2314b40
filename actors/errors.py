"""The exception tree of `actors`: what a service cannot do, apart from what its models cannot (`models.errors`).

ServiceError
├── OverloadedError    too much is asked at once; later it will be served
├── KeyFileError       the file of API keys cannot be used
└── ListenError        without keys only loopback addresses may be listened on
"""


class ServiceError(Exception):
    """Base of everything `actors` raises on purpose."""


class OverloadedError(ServiceError):
    """No more requests are taken now. Plain, so that it can cross processes."""


class KeyFileError(ServiceError):
    """The file of API keys cannot be read, holds none, or can be read by others."""


class ListenError(ServiceError):
    """The service would be open to a network without asking for a key."""
