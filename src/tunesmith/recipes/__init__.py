"""Floor 6: one readable program per verb; the only place where tasks, methods and models meet."""
