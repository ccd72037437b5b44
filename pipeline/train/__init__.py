"""Training with sharded tables: plain torch and torch.distributed."""
