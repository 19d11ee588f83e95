"""One request: its limits become charges, the engine decides over them, and the real usage is settled."""
