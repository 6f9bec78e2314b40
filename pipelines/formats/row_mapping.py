"""`row` in a template: the mapping of all columns, whatever their names."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

ROW: Final = "row"
"""What templates call it. A column of that name is `row["row"]`."""


def in_row(name: str) -> str:
    """A column as any template can name it."""
    return f"{ROW}[{json.dumps(name, ensure_ascii=False)}]"


class RowMapping(dict[str, Any]):
    """Column to value."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "RowMapping":
        """The row as such a mapping, itself if it is one."""
        return row if isinstance(row, RowMapping) else cls(row)


class ProtectedRow(RowMapping):
    """A row whose columns' names are protected as its texts are, since a template can print them. They are found by their own names."""

    def __init__(
        self, columns: Mapping[str, Any], *, protect: Callable[[str], str], protect_value: Callable[[Any], Any]
    ) -> None:
        super().__init__({protect(name): protect_value(value) for name, value in columns.items()})
        self._protect = protect

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._own(name))

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(self._own(name))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._own(name), default)

    def _own(self, name: Any) -> Any:
        """The key for a column's name, which may be one already."""
        return name if not isinstance(name, str) or super().__contains__(name) else self._protect(name)
