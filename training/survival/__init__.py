"""Statistics of follow-up: curves, hazards, discrimination and what they may claim."""
