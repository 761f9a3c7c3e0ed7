"""What labels are worth to a classifier that is trained on them: the same one on each label set, tested on the truth.

`label_sets` matches tables and truth image by image, `inputs` reads the images once, `backbone` and `train` are the
classifier, `scores` and `gap` the figures with their intervals, `study` puts them together, `plot` draws.
"""
