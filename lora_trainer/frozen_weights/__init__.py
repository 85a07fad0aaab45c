"""The model's own weights during a training: in 8 bits, in CPU memory, or in another number format; then put back."""
