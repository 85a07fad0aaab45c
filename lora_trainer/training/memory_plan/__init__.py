"""How much memory a run needs in each of its phases, and the cheapest set-up that fits what there is."""
