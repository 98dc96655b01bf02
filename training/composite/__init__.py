"""Two biomarkers become one score: the exact search, and what the search costs in honesty."""
