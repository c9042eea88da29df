"""The method in plain loops: what tests hold it to, and benchmarks beat."""
