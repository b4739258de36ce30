"""`azpgauth check`: the command, the steps to the server, and the network below the drivers."""
