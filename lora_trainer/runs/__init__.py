"""What was trained and what will be: the list of all runs of an output folder, and the queue."""
