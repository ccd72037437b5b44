"""DataFrame engines: connections, frames, backpressure, spilling."""
