"""What a classifier's predictions are worth: figures, intervals, tests, and the table that holds the predictions.

No torch here: everything works on arrays and files that a run left behind.
"""
