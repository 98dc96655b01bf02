"""Molecular correlates of any grouping of patients: genes, gene sets, mutations, the microenvironment and proteins."""
