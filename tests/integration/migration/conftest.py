"""The sample project has tests of its own, which are run where its workers are."""

collect_ignore = ["shop"]
