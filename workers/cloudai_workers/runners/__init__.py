"""Runners: the two ways in which a node runs a container job, behind one small interface."""
