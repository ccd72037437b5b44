"""The graph of users and items: smoothing, and spectral initialization."""
