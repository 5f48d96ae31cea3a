"""Speed and memory as sizes grow, beside other packages: ``python -m benchmarks.scale``."""
