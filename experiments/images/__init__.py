"""What experiments on images share: recipes, two views of an image, evaluation, the page."""
