"""Looking at what a model is given, and at what a machine can do: behind ``timelens inspect`` and ``timelens
doctor``."""
