"""Datasets: what a split is, where images come from, and in which order they are seen.

jaxcon.data.sources      load(dataset): digits, folder:PATH, tar:PATH, parquet:PATH or a TFDS name
jaxcon.data.captions     load_pairs(dataset): images with captions, from the same places
jaxcon.data.splits       the types: Split, Dataset, PairSplit, PairDataset
jaxcon.data.stored       pictures as they are stored: bytes of files, of which training takes its crops
jaxcon.data.photographs  Photographs(stored, shape): what evaluation sees of them
jaxcon.data.crops        Crops(side): which parts of them training sees
jaxcon.data.batching     batches(split, ...): their order is a pure function of (seed, step)
jaxcon.data.pairs        pair_batches(images, tokens, ...): the same with one caption each
jaxcon.data.image_files  check_images(paths), read_image(path): errors in one line
jaxcon.data.readers      folders, tables, tar, parquet, TensorFlow Datasets, behind load and load_pairs
jaxcon.data.shipped      digits and scenes, TFDS builders that need no download
"""
