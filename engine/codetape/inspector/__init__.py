"""Pages over recorded sessions: read in a browser while runs go on, or written to one file that needs nothing else."""
