"""The pure core of scheduling: values, formulas and decisions, without I/O.

Read `pipeline.py` first: one function shows how a task gets its nodes.
"""
