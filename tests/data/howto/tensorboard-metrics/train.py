"""Logs to TensorBoard, as training scripts do. It knows nothing of spell."""

import math

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # the page works without torch, too
    from events import SummaryWriter

with SummaryWriter("logs/train") as train, SummaryWriter("logs/val") as val:
    for step in range(200):
        train.add_scalar("loss", 2 * math.exp(-step / 40), step)
        if step % 20 == 0:
            val.add_scalar("loss", 2.2 * math.exp(-step / 50), step)
