"""Static values: what is part of a cache key and not traced, and when two of them are interchangeable."""
