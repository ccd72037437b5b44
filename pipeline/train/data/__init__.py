"""What a step reads: batches, negatives, histories, the graph of users and items."""
