"""python -m pipelines COMMAND is the same program as ganad COMMAND."""

from pipelines.cli.app import main

if __name__ == "__main__":
    main()
