"""Where data comes from: folders, tables of captions, TensorFlow Datasets."""
