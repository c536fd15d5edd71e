"""What `scripts.gpu_check` makes of what was found on a GPU."""
