"""Live streams: `sim send`, `receive`, `demo` and `replay`."""
