"""How good frozen features are: NumPy arrays in, floats out.

jaxcon.evaluation.nearest        nearest rows, found on the devices in tiles, exact all the same
jaxcon.evaluation.logistic       fit: logistic regression on the devices, a grid of penalties at once

jaxcon.evaluation.knn            knn_accuracy: the labels of the nearest training images
jaxcon.evaluation.linear_probe   linear_probe_accuracy: logistic regression on all labels;
                                 few_label_probe: a ridge classifier on n labels per class
jaxcon.evaluation.retrieval      recall_at_k, chance_recall: from images to texts and back
jaxcon.evaluation.zero_shot      zero_shot_scores, zero_shot_accuracy: classes given by prompts
"""
