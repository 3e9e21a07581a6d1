"""The same work beside what people use instead: their own packages, on the same disk, in turn."""
