"""The programs of sites and server, what travels between them, and the engines that bring them together."""
