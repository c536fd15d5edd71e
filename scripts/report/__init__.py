"""The report: one offline site about everything that was measured, written by `asv publish` into its own."""
