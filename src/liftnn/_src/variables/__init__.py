"""What holds the arrays: Variables and States, their metadata, and whom each object belongs to."""
