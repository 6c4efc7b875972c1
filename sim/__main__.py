"""`python -m sim`: the command line."""

from sim.cli.main import app

if __name__ == "__main__":
    app()
