"""The figures that the project promises, each measured against its reference in the same run (docs/performance.md)."""
