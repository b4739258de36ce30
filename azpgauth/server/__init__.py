"""Says where the server is, how far it is trusted, and what its words mean."""
