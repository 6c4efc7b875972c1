"""`sim study`: what repair gives, by loss condition."""
