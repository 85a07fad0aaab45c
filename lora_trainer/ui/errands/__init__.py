"""What else takes the model's turn, beside training and testing; one file each."""
