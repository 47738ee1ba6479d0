"""What is differentiated, and what derivatives look like."""
