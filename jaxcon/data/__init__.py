"""Datasets: what a split is, where images come from, in which order they are seen.

jaxcon.data.sources    load(dataset): digits, folder:PATH or a TFDS name
jaxcon.data.batching   batches(split, ...): their order is a pure function of (seed, step)
jaxcon.data.captions   load_pairs(dataset): images with captions, from the same three places
jaxcon.data.image_files  check_images(paths), read_image(path): what is wrong is said in one line
jaxcon.data.digits     handwritten digits, a TFDS builder we ship
jaxcon.data.scenes     made-up pictures with captions, the other one (drawing, grammar)
"""
