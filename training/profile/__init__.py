"""Clusters of patients by their features: found, judged, ranked, and set against outcome."""
