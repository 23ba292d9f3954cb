"""How good a potential is: errors, stability of dynamics, smoothness of bonds."""
