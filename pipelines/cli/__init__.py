"""The command line: one file per command. It parses, calls one function of a job, and prints."""
