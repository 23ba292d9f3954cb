# %% [markdown]
# # CP products in an e3nn network
#
# `CPTensorProduct` takes the place of e3nn's tensor product: the same irreps, fewer operations. It
# holds the coupling tensor as a sum of a few products, exactly or approximately.

# %%
import time

import torch
from e3nn import o3

from tdn.cp import load_factors
from tdn.cp.tensor_product import CPTensorProduct

torch.manual_seed(0)
factors = load_factors(2)
print("rank", factors.input1.shape[1], "of a tensor with", 9 * 9 * 9, "entries")
print("largest error of the decomposition", f"{factors.relative_error:.0e}")

# %% [markdown]
# ## The product
#
# 32 channels of features, multiplied with spherical harmonics of edges; one weight per channel and
# edge, as from a radial network.

# %%
hidden = o3.Irreps("32x0e+32x1o+32x2e")
harmonics = o3.Irreps.spherical_harmonics(2)
product = CPTensorProduct(hidden, harmonics, hidden, mode="uvu", layout="e3nn")
edges = 2000
x = hidden.randn(edges, -1)
y = harmonics.randn(edges, -1)
weights = torch.randn(edges, product.weight_numel)
z = product(x, y, weights)
print(z.shape)

# %% [markdown]
# ## Equivariance
#
# Rotating the inputs rotates the output, to rounding.

# %%
rotation = o3.rand_matrix()
D = [irreps.D_from_matrix(rotation) for irreps in (hidden, harmonics)]
rotated = product(x @ D[0].T, y @ D[1].T, weights)
deviation = (rotated - z @ D[0].T).abs().max() / z.abs().max()
print(f"relative deviation {deviation:.1e}")
assert deviation < 1e-4

# %% [markdown]
# ## The same function as the dense tensor
#
# `exact=True` multiplies with the dense coupling tensor: slower, and the same to rounding.

# %%
dense = CPTensorProduct(hidden, harmonics, hidden, mode="uvu", layout="e3nn", exact=True)


def seconds(function):
    """Best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(x, y, weights)
        times.append(time.perf_counter() - start)
    return min(times)


print("difference", f"{(dense(x, y, weights) - z).abs().max() / z.abs().max():.1e}")
print(f"dense {1e3 * seconds(dense):.1f} ms, CP {1e3 * seconds(product):.1f} ms")
