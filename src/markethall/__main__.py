"""The entry point of the command line."""

import gc


def main() -> None:
    # Imports leave no garbage, but each collection would search all objects that they create.
    gc.disable()
    from markethall import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
