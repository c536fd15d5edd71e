"""What is looked at on an NVIDIA GPU, part by part, for `scripts.gpu_check`: a line for everything that is found."""
