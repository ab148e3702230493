"""
Attention in PyTorch
====================

The modules of ``sparsehopfield.torch`` take the separation map as an argument. Three poolings learn to read the number
at a marked position; the pictures show where each of them looks.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from sparsehopfield.inspect import plots
from sparsehopfield.torch import HopfieldPooling


# %%
# A sequence has eight positions with a number and a mark each. The answer is the number at the only mark.
def sequences(n):
    numbers, place = torch.rand(n, 8), torch.randint(8, (n,))
    marks = nn.functional.one_hot(place, 8).float()
    return torch.stack([numbers, marks], dim=-1), numbers[torch.arange(n), place]


# %%
# A pooling asks a sequence one question, which it learns. Each position is a pattern.
torch.manual_seed(0)
off = ("stored_pattern", "stored_pattern_affine", "pattern_projection", "pattern_projection_affine")
as_they_are = {f"normalize_{what}": False for what in off}
shown, _ = sequences(12)
figure, axes = plt.subplots(1, 3, figsize=(10, 4.2), layout="constrained", sharey=True)
for ax, separation in zip(axes, ("softmax", "entmax15", "sparsemax"), strict=True):
    pooling = HopfieldPooling(2, hidden_size=4, num_heads=1, scaling=1.0, separation=separation, **as_they_are)
    model = nn.Sequential(pooling, nn.Flatten(), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(150):
        inputs, answers = sequences(64)
        loss = nn.functional.mse_loss(model(inputs)[:, 0], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        weights = pooling.get_association_matrix(shown)[:, 0, 0]
    print(f"{separation}: loss {loss.item():.4f}, weights that are 0: {(weights == 0).float().mean():.0%}")

    # One row a sequence, one column a position; crosses are the marks, and grey is a weight of exactly 0.
    plots.attention_map(weights.numpy(), colorbar=False, ax=ax)
    ax.plot(shown[:, :, 1].argmax(1), range(12), "x", color="red")
    ax.set(title=separation, xlabel="position")
axes[0].set_ylabel("sequence")
plt.show()
