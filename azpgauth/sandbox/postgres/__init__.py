"""Plays Azure Database for PostgreSQL: the server, and the gateway before it."""
