"""One callback for each training framework; each opens a recorder, logs the loss, and closes it, nothing else."""
