"""What the notebooks of the series share: one module for each job, see the README for the floor plan."""
