"""Numbers of bytes, as people read them."""


def byte_text(num_bytes: int) -> str:
    """`812 B`, `4.1 MB`, `7.53 GB`: in powers of 1000."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"
