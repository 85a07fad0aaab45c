"""Whether a dataset is fit to train on: measures of each image, rules on what they mean, and one sentence."""
