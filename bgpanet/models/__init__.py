"""Networks: the BGPA block, BGPANet, and everything behind `build_model`."""

from bgpanet.models.bgpa import BGPABlock
from bgpanet.models.bgpanet import BGPANet
from bgpanet.models.zoo import build_model

__all__ = ["BGPABlock", "BGPANet", "build_model"]
