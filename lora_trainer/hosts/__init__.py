"""Where the model lives: the Host protocol and its implementations."""
