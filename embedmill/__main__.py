"""`python -m embedmill`."""

from embedmill.jobs.cli import main

if __name__ == "__main__":
    main()
