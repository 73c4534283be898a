"""The verbs of the command `bgpanet`, a file a topic. Each parses, calls the client (or starts a part), and prints."""
