"""
Which past weeks a forecast is made of
======================================

``HopfieldForecaster`` stores every window of a series with what followed it. A forecast is a mixture of what followed
the windows most like the last one. With a sparse map these are few, and can be named with their dates and weights.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield.estimators import HopfieldForecaster

# %%
# A load by the hour, made up: days, weekends, a slow swing, and noise. The last two days are kept apart.
rng = np.random.default_rng(0)
hours = np.arange(24 * 7 * 26)
dates = np.datetime64("2026-01-05T00") + hours
day, weekday = hours % 24, hours // 24 % 7
load = np.exp(-(((day - 19) / 3) ** 2)) + 0.6 * np.exp(-(((day - 8) / 2) ** 2)) * (weekday < 5)
load += 0.3 * np.sin(2 * np.pi * hours / (24 * 91)) + 0.05 * rng.standard_normal(len(hours))
past, future = load[:-48], load[-48:]

# %%
# No training: fitting stores all windows of a week.
options = {"horizon": 48, "window": 168, "floor": 0.1}
models = {
    "softmax": HopfieldForecaster(beta=20.0, separation="softmax", **options).fit(past),
    "sparsemax": HopfieldForecaster(beta=2.0, separation="sparsemax", **options).fit(past),
}
for name, model in models.items():
    used = model.analogues()[0].support_size
    error = np.abs(model.predict() - future).mean()
    print(f"{name}: mean absolute error {error:.3f}, a mixture of {used} of {len(model.memories_[0]):,} windows")

# %%
# On the left what came, and both forecasts; on the right the heaviest windows of the sparse one and what followed them,
# each moved to the mean of the last week. They end at the same hour of the same day of the week.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
ahead = np.arange(48)
left.plot(ahead, future, color="black", label="what came")
for (name, model), style in zip(models.items(), ("--", "-"), strict=True):
    left.plot(ahead, model.predict(), style, label=name)
left.set(xlabel="hours ahead", ylabel="load")
left.legend(frameon=False, loc="upper left")

(found,) = models["sparsemax"].analogues(top=4)
right.plot(np.arange(-72, 0), past[-72:], color="black")
for end, weight in zip(found.ends, found.weights, strict=True):
    label = f"{dates[end].item():%a %d %b, %H} h: {weight:.2f}"
    moved = past[-168:].mean() - load[end - 168 : end].mean()
    right.plot(np.arange(-72, 48), load[end - 72 : end + 48] + moved, linewidth=1, label=label)
right.axvline(0, color="gray", linewidth=0.8)
right.set(xlabel="hours ahead", title=f"4 of {found.support_size} windows with weight")
right.legend(frameon=False, fontsize=8, loc="upper left")
left.set_ylim(-0.3, 1.9)
plt.show()
