"""Pure functions of class-conditional GANs: D's logits are n×classes, y the labels, int64 (n,)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def of_class(logits: Tensor, y: Tensor) -> Tensor:
    """The logit of each image's own class: n×classes -> n."""
    return logits.gather(1, y[:, None]).squeeze(1)


def classification(real_logits: Tensor, fake_logits: Tensor, y: Tensor) -> Tensor:
    """−L_C = −mean log P(C = y | x) − mean log P(C = y | x̂) (Odena et al. 2017, eq. 3)."""
    real = F.cross_entropy(real_logits.float(), y)
    return real + F.cross_entropy(fake_logits.float(), y)


def source_surprise(real_logits: Tensor) -> Tensor:
    """−log max_c D_src(x, c): n×classes -> n."""
    return F.softplus(-real_logits.float().amax(1))


def class_surprise(class_logits: Tensor) -> Tensor:
    """−log max_c P(c | x): n×classes -> n; 0 where there is one class."""
    return -class_logits.float().log_softmax(1).amax(1)


def joint_surprise(real_logits: Tensor, class_logits: Tensor) -> Tensor:
    """−log max_c [D_src(x, c) · P(c | x)]: n×classes -> n."""
    real = -F.softplus(-real_logits.float())
    return -(real + class_logits.float().log_softmax(1)).amax(1)
