"""Watching a run: is it still learning, or has something gone wrong that the person should know of within ten steps?

:mod:`health` and :mod:`pace` look at numbers that the loop has anyway, :mod:`baseline` compares them with the base
model's, :mod:`disk` counts what is still to be written. None of them changes a number of the training.
"""
