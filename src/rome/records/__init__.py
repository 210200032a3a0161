"""Records as bytes: order-preserving keys and row values. Knows bytes, not SQL and not stores."""
