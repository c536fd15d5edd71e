"""A night: everything that happens unattended, in one command. See README, "Every night"."""
