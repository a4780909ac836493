"""Product reviews, as a context of Markethall."""
