"""Learning and judging hypoxia biomarkers: selection, search, honest estimates, tracking and the registry."""
