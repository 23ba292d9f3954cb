"""From a structure to a potential: a slow calculator labels what a fast network visits."""
