"""What training needs of the protocol: masks of lost packets, orders of slices."""
