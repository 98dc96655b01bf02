"""Scoring new patients with a registered bundle, offline or over HTTP."""
