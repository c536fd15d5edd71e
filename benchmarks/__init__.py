"""The asv suites. Each file answers one question about every case; how it is measured lives in `harness`."""
