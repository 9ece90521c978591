"""Training runs from end to end: recipes, folders, evaluation, and looking inside an episode."""
