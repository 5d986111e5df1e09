"""`python -m mmalign` is `mmalign`."""

from mmalign.cli.main import main

if __name__ == "__main__":
    main()
