"""What is really on the shelf: a distribution over the pieces that can be found of each SKU at each location, and what follows from it."""
