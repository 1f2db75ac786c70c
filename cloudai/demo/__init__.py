"""The demo: real jobs of all six types on a local cluster, judged by evidence of their own."""
