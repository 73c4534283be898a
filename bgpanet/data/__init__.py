"""Data: readers, index, splits, decoded pixels, augmentation, batches, and a drawn lesion set."""
