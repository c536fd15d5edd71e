"""What is done with the measurements. Every command runs as `python -m scripts.NAME` and has --help."""
