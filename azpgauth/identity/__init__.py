"""Says who signs in: credentials, their tokens, and the role that a token names."""
