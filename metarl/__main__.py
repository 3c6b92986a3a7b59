"""`python -m metarl` is `metarl`."""

from metarl.cli.app import main

if __name__ == "__main__":
    main()
