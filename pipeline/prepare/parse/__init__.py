"""Raw columns to typed events: values, times, records, rejects."""
