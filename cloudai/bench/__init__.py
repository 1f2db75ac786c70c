"""The figures that the project promises, each against its reference in the same run (docs/performance.md)."""
