"""Sources of the corpus: each module reads one kind of annotation into candidates, lazily."""
