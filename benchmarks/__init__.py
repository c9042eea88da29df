"""Speed and memory, each a ratio to a limit measured in the same run.

python -m benchmarks [--only NAME] --output FILE
"""
