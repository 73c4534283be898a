"""What a network looked at: Grad-CAM, the block's own maps, and how far either can be trusted."""
