"""The report of a run as one page for people, and the model card beside it.

Pages are made from what a run leaves anyway (`report.json`, `predictions.parquet`, `gallery.json`), so they can be
made again later, and those of a cross-validation need none of its nets.
"""
