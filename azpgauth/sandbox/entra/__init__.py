"""Plays Microsoft Entra ID: who is known, where tokens are asked for, and the tokens."""
