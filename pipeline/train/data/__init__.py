"""What steps and validation read: events, sample weights, negatives, L2 factors, histories."""
