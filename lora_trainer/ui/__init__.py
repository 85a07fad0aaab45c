"""What the person sees: the tab, the job behind it, the HTTP routes."""
