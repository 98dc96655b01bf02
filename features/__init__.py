"""Everything that turns a patient into numbers, the types that name them, and the bundle that leaves training."""
