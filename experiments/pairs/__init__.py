"""What experiments on images and captions share: the model, its losses, retrieval, the page."""
