"""The genetic search for better parameters (spec section 7): genes, evolution, fitness, guard."""
