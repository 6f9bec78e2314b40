"""The alphabet of byte-level tokenizers: one printable character for each of the 256 bytes.

Bytes that are printable in Latin-1 stand for themselves; the others are numbered from U+0100 on. Source: GPT-2's
`bytes_to_unicode`.
"""

from collections.abc import Mapping


def _byte_of_character() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_OF_CHARACTER: Mapping[str, int] = _byte_of_character()
