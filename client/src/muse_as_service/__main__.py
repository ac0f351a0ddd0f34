"""`python -m muse_as_service` is the command `muse`."""

from .cli.main import run

if __name__ == "__main__":
    run()
