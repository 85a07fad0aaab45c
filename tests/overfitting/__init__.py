"""What keeps a LoRA of few images from overfitting: trainings with and without each method, read by the judge."""
