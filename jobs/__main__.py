"""`python -m jobs` is `millrace`."""

from jobs.cli import main

if __name__ == "__main__":
    main()
