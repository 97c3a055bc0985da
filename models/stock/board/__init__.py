"""What online reads see of stock: a memory-mapped matrix of cells, SKU by location."""
