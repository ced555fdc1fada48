"""What happens to a batch of images: ranks, shared batch norms, augmentation, patches."""
