"""Whether this machine is ready for its nights, and for all that is not ready what to type."""
