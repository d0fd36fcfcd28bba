"""Command line: parse, call, print, and turn an error into its exit code."""
